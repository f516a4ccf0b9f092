// Nothing: a libtorch.so by name. An AOTInductor package asks for it beside libtorch_cpu.so, which
// has everything; the one of PyPI's wheel would load CUDA's libraries, which a server on the CPU
// lacks.
