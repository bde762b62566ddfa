"""How good recall is, on conversations that are written here. docs/BENCHMARKS.md says how to read the figures."""
