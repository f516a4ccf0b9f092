#!/usr/bin/env python3
"""Writes moses_vectors.json and bpe_vectors.json beside this file: what sacremoses 0.2.0 and
subword-nmt 0.3.8 make of our sentences.

    pip install sacremoses==0.2.0 subword-nmt==0.3.8 && python3 make_vectors.py
"""

import io
import json
import pathlib
import random

from sacremoses import MosesDetokenizer, MosesTokenizer
from subword_nmt.apply_bpe import BPE
from subword_nmt.learn_bpe import learn_bpe

HERE = pathlib.Path(__file__).parent
PREFIXES = ["Dr", "Mr", "e.g", "Jan", "vs", "J", "bzw", "No #NUMERIC_ONLY#", "Art #NUMERIC_ONLY#"]

ENGLISH = """\
Hello, world!
The quick brown fox jumps over the lazy dog.
It's the Jones' house, isn't it? I can't believe they're here; we'd've left at 5 o'clock.
'Twas the night before Christmas, and the '90s were the kids' best years: rock 'n' roll!
Mr. Smith and Dr. Who met on Jan. 5, e.g. at No. 10 vs. No. ten. Art. 7 holds.
J. R. R. Tolkien wrote it in the U.S. and the U.K. It was long.
Prices rose by 3,500.25 dollars, i.e. 5,3 % of $1,000,000, or £99, ¥5 and €7.50.
A,B,C,D,E and 1,2,a,3, but not 4,
This is well-known: a state-of-the-art e-mail-based end-to-end 3-2-1 system -- or not - maybe.
He said: "Never say 'never'." Then (quietly) [sic] {he} left...
Wait... what?! Really..?. Yes.... A..B ... . ..
Use a && b || c < d > e & 'f' | "g" [h] or &amp; &lt;i&gt; tags.
See https://example.org/a_b/c-d?e=f&g=h#i or mail john.doe@example.com, @user #hashtag 100%.
C:\\Windows\\System32 and /usr/local/bin; and/or; 24/7; 1/2.
“Smart quotes” and ‘single ones’, „low“ ones, «guillemets» — dashes – too… and ellipsis.
Zürich, naïve façade, Ångström, Łódź, Ελλάδα, Москва, ñandú, œuvre, Straße.
Greek '5 and Ж'5, and l'eau, d'Artagnan's, O'Neill's '80s 1980's x'1 1'x.
H₂O at 20°C is 5 m² and ½ of ¼; x² + y³ = z⁴; ∑ ≠ ∞; 5×3; №7; ™ © ®.
tabs\tand  two spaces\u00a0and\u2003wide ones\u3000end
\u0001control\u001fcharacters\u007f here \u0085 there
A sentence that ends in a quotation mark.'
A sentence that ends with a letter and a stop: X. Then Y. then z.
It ends with an abbreviation etc. but goes on. and on. And On.
. .. ... ' '' ` `` , ,, - -- --- "
'
''
don''t it''s ''quoted'' 'single' '
a.b.c. A.B.C. x.y. 3.14. 3. 10.
DOTMULTI is a word, and so is DOTDOTMULTI.
emoji 😀 and 👩‍👩‍👧 and flags 🇩🇪, e\u0301 combining
0123 ١٢٣ ⅫⅣ Ⅻ. ⅻ
(a) [b] {c} <d> a(b)c a[b]c a{b}c a<b>c
A:B;C!D?E a:b;c!d?e 12:30 3;4
foo_bar __init__ a_b 5_000
@-@ literal @-@ and a@-@b @@ and x@@ y
""".splitlines()

GERMAN = """\
Das ist ja schön, nicht wahr? Er sagte: „Komm her!“
Dr. Müller bzw. Art. 5 und Art. fünf kosten 3.500,25 Euro, d.h. 5 %.
Der Öko-Wein-Preis-Index stieg um 1,5 % auf 10 %-15 %.
Hans' Auto, wie geht's? 'Zitat' und "Zitat".
Straßen- und Brückenbau (z.B. A7) [siehe S. 5] – fertig.
""".splitlines()

# As a model would write them, that is with escapes.
TOKENS = """\
Das ist ja schön , nicht wahr ?
Er sagte : &quot; Komm her ! &quot; und ging .
Er sagte : „ Komm her ! “ und &apos; ging &apos; ` hier ` .
Das ( und nur das ) kostet $ 5 oder € 7 , d.h. 5 % [ sic ] { so } .
Der Öko @-@ Wein @-@ Preis stieg um 1,5 % - sagt man .
Wie geht &apos;s ? Hans &apos; Auto . &apos; Nein &apos;
it &apos;s the Jones &apos; house and the kids &apos; &apos; best &apos; .
&#91; a &#93; &lt; b &gt; c &amp; d &#124; e &amp;lt; f &amp;amp; g &bar; &bra; &ket;
... Nun ja ... - was ?! ?? !!!
&quot; a &quot; b &quot; c
¿ que ? ¡ si ! £ 5 ¥ 6
&quot;&quot; doppelt &quot;&quot; &apos;&apos; hier &apos;&apos;
a &quot; &apos; b &apos; &quot; c
@-@ a @-@ b @-@
wir sind &apos;re , &apos;ll und &apos;5
” rechts ” und ‘ links ’
 \u00a0 weiß \u2003 breit
<unk> und <unk> .
""".splitlines()


def moses():
    # sacremoses reads a file of its own prefixes.
    path = HERE / "nonbreaking_prefix.test"
    path.write_text("# Ours.\n\n" + "\n".join(PREFIXES) + "\n")
    cases = []
    for language, texts in (("en", ENGLISH + GERMAN), ("de", GERMAN + ENGLISH)):
        tokenizer = MosesTokenizer(language, custom_nonbreaking_prefixes_file=path)
        for text in texts:
            for hyphens in (False, True):
                tokens = tokenizer.tokenize(text, aggressive_dash_splits=hyphens)
                cases.append({"language": language, "splits_hyphens": hyphens, "text": text,
                              "tokens": tokens})
    back = [{"language": language, "tokens": tokens.split(),
             "text": MosesDetokenizer(language).detokenize(tokens.split())}
            for language in ("en", "de") for tokens in TOKENS]
    return {"tokenize": cases, "detokenize": back}


def random_words():
    """Of few letters, so that merges overlap."""
    numbers = random.Random(1)
    return ["".join(numbers.choices("aabc", k=numbers.randint(1, 24))) for _ in range(150)]


def shuffled(codes):
    """Ranks that no learner gives: merges make earlier ones possible."""
    first, *rest = codes.splitlines()
    random.Random(2).shuffle(rest)
    return "\n".join([first, *rest]) + "\n"


def bpe():
    words = " ".join(ENGLISH + GERMAN).split() * 2 + random_words()
    learned = io.StringIO()
    learn_bpe(io.StringIO(" ".join(words)), learned, num_symbols=300, min_frequency=2)
    codes = learned.getvalue()
    # The end of a word is a symbol of its own there.
    version_1 = "a b\nab c\nc </w>\na a\naa </w>\nabc </w>\ne n\nen </w>\n" + "".join(
        line + "\n" for line in codes.splitlines()[1:] if "</w>" not in line
    )
    cases = []
    for text in (codes, shuffled(codes), version_1):
        encoder = BPE(io.StringIO(text))
        distinct = list(dict.fromkeys([*words, "unseen", "日本語", "x", "ß", "</w>", "a</w>"]))
        cases.append({"codes": text, "words": [[word, encoder.segment(word)] for word in distinct]})
    return cases


def write(name, value):
    text = json.dumps(value, ensure_ascii=False, indent=0, separators=(",", ":"))
    (HERE / name).write_text(text + "\n")


write("moses_vectors.json", moses())
write("bpe_vectors.json", bpe())
