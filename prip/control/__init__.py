"""What users say about what may be added: attributes that are kept, styles, artists."""
