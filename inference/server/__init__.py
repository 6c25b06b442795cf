"""`prip serve`: a refiner behind HTTP, which puts what many clients ask for into one batch."""
