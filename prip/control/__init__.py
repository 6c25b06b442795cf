"""Control over what is added: kept attributes, styles, artists and faults."""
