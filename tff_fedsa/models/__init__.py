"""Client models: feature extractor + head in Keras, made functional."""
