"""edgevid_convert: from a trained Keras classifier to a bundle. Needs the [convert] extra."""

__all__: list[str] = []
