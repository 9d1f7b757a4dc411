"""edgevid and its peers on the same clips: ``python -m edgevid_bench.studies.peers``."""
