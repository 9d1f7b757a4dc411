"""Scripts that check what is claimed of edgevid: each is run by ``python -m edgevid_bench.studies.NAME``."""
