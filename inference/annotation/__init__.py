"""People's judgement of an evaluation's images: a page that asks, answers that stay, and what they say together."""
