"""Human evaluation of an evaluation's images: a web page, the answers on disk, and their summary."""
