"""`prip serve`: a refiner over HTTP, with concurrent requests batched together."""
