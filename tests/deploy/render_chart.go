// render_chart renders a Helm chart where there is no Helm.
//
//	render_chart [-release NAME] [-namespace NAME] [-values FILE]... CHART
//
// It knows what our chart uses: Go's templates with Sprig's functions, include, tpl, required,
// fail, toYaml, .Values, .Chart, .Release, .Files.Get and .Capabilities. Values are merged as Helm
// merges them, and manifests come in the order in which Helm installs them. values.schema.json is
// not looked at.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"github.com/ghodss/yaml"
)

const kubeVersion = "v1.33.0"

var installOrder = []string{
	"NetworkPolicy", "PodDisruptionBudget", "ServiceAccount", "ConfigMap", "PersistentVolumeClaim",
	"Service", "Deployment", "HorizontalPodAutoscaler",
}

type values = map[string]interface{}

type files struct{ root string }

// Get is empty where there is no such file, as in Helm.
func (f files) Get(name string) string {
	text, err := os.ReadFile(filepath.Join(f.root, name))
	if err != nil {
		return ""
	}
	return string(text)
}

type apiVersions struct{}

func (apiVersions) Has(string) bool { return true }

// merge puts over into base. A null removes a key.
func merge(base, over values) {
	for key, value := range over {
		inner, isMap := value.(values)
		known, wasMap := base[key].(values)
		switch {
		case value == nil:
			delete(base, key)
		case isMap && wasMap:
			merge(known, inner)
		default:
			base[key] = value
		}
	}
}

func readYAML(name string) (values, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	result := values{}
	if err := yaml.Unmarshal(text, &result); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return result, nil
}

func toYAML(value interface{}) (string, error) {
	text, err := yaml.Marshal(value)
	return strings.TrimSuffix(string(text), "\n"), err
}

func functions(t *template.Template) template.FuncMap {
	result := sprig.TxtFuncMap()
	delete(result, "env")
	delete(result, "expandenv")
	run := func(name string, data interface{}) (string, error) {
		var out bytes.Buffer
		err := t.ExecuteTemplate(&out, name, data)
		return out.String(), err
	}
	result["include"] = run
	result["tpl"] = func(text string, data interface{}) (string, error) {
		if _, err := t.New("tpl").Parse(text); err != nil {
			return "", err
		}
		return run("tpl", data)
	}
	result["toYaml"] = toYAML
	result["required"] = func(message string, value interface{}) (interface{}, error) {
		if value == nil || value == "" {
			return nil, errors.New(message)
		}
		return value, nil
	}
	return result
}

// upperCaseKeys turns Chart.yaml's fields into those of .Chart.
func upperCaseKeys(chart values) values {
	result := values{}
	for key, value := range chart {
		result[strings.ToUpper(key[:1])+key[1:]] = value
	}
	return result
}

type manifest struct{ source, kind, text string }

var kindLine = regexp.MustCompile(`(?m)^kind: (\w+)`)

func rank(kind string) int {
	for i, known := range installOrder {
		if kind == known {
			return i
		}
	}
	return len(installOrder)
}

func render(root, release, namespace string, overrides []string) ([]manifest, error) {
	chart, err := readYAML(filepath.Join(root, "Chart.yaml"))
	if err != nil {
		return nil, err
	}
	given, err := readYAML(filepath.Join(root, "values.yaml"))
	if err != nil {
		return nil, err
	}
	for _, name := range overrides {
		over, err := readYAML(name)
		if err != nil {
			return nil, err
		}
		merge(given, over)
	}

	t := template.New("").Option("missingkey=zero")
	t.Funcs(functions(t))
	sources, err := filepath.Glob(filepath.Join(root, "templates", "*"))
	if err != nil {
		return nil, err
	}
	name := fmt.Sprint(chart["name"])
	for _, source := range sources {
		text, err := os.ReadFile(source)
		if err != nil {
			return nil, err
		}
		inChart := path.Join(name, "templates", filepath.Base(source))
		if _, err := t.New(inChart).Parse(string(text)); err != nil {
			return nil, err
		}
	}

	data := values{
		"Values": given,
		"Chart":  upperCaseKeys(chart),
		"Files":  files{root},
		"Release": values{"Name": release, "Namespace": namespace, "Service": "Helm",
			"IsInstall": true, "IsUpgrade": false, "Revision": 1},
		"Capabilities": values{"APIVersions": apiVersions{}, "KubeVersion": values{
			"Version": kubeVersion, "Major": "1", "Minor": "33"}},
	}
	var manifests []manifest
	for _, source := range sources {
		if filepath.Ext(source) != ".yaml" {
			continue
		}
		inChart := path.Join(name, "templates", filepath.Base(source))
		data["Template"] = values{"Name": inChart, "BasePath": path.Join(name, "templates")}
		var out bytes.Buffer
		if err := t.ExecuteTemplate(&out, inChart, data); err != nil {
			return nil, err
		}
		for _, text := range regexp.MustCompile(`(?m)^---\s*$`).Split(out.String(), -1) {
			if strings.Contains(text, "<no value>") {
				return nil, fmt.Errorf("%s uses a value that there is not", inChart)
			}
			if kind := kindLine.FindStringSubmatch(text); kind != nil {
				manifests = append(manifests, manifest{inChart, kind[1], strings.TrimSpace(text)})
			}
		}
	}
	sort.SliceStable(manifests, func(i, j int) bool {
		return rank(manifests[i].kind) < rank(manifests[j].kind)
	})
	return manifests, nil
}

type list []string

func (l *list) String() string         { return strings.Join(*l, ",") }
func (l *list) Set(value string) error { *l = append(*l, value); return nil }

func main() {
	release := flag.String("release", "evaserve", "name of the release")
	namespace := flag.String("namespace", "default", "namespace of the release")
	var overrides list
	flag.Var(&overrides, "values", "file of values; may be repeated")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	manifests, err := render(flag.Arg(0), *release, *namespace, overrides)
	if err != nil {
		fmt.Fprintln(os.Stderr, "render_chart:", err)
		os.Exit(1)
	}
	for _, m := range manifests {
		fmt.Printf("---\n# Source: %s\n%s\n", m.source, m.text)
	}
}
