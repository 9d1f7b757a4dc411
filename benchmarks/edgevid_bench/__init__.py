"""edgevid_bench: what this machine does with a bundle, measured. Needs the [bench] extra."""

__all__: list[str] = []
