"""Templates that another tool will choose from: dynamic prompts, wildcards and variables.

`{a|b}`, `{0.5::a|b}`, `{2$$a|b}` and `{2$$ and $$a|b}` are read as their first choice, `${x=a}` as nothing and `${x}`
as its value, `__color__` as the wildcard's name. Brackets without a choice stay as they are.
"""

from __future__ import annotations

import re

_BRACES = re.compile(r"(?<!\\)(\$?)\{([^{}]*)\}")
_WILDCARD = re.compile(r"(?<![^\W_])__(\*?[^\W_][\w/*.-]*?)__(?![^\W_])")
_COUNT = re.compile(r"\s*[~@]?\s*(?:\d*-?\d*\$\$)?(?:[^|$]*\$\$)?")
_WEIGHT = re.compile(r"\s*\d*\.?\d+::")
_USE = re.compile("\ue002([^:\ue003]*)(?::([^\ue003]*))?\ue003")
"""The use of a variable, with its default value, while others are resolved."""
_ESCAPED = str.maketrans("\ue000\ue001", "{}")
_MOST_DEPTH = 40
_LONGEST_VALUE = 200
"""Characters of a variable's value that are read, so that no prompt grows beyond measure."""


def with_first_choices(prompt: str) -> tuple[str, list[str]]:
    """Return a prompt as it reads with the first choice of each template.

    Args:
        prompt: A prompt of a user.

    Returns:
        The prompt with its templates replaced, and all texts that a template may choose, those of nested templates
        before those around them. Names of wildcards, whose choices are unknown here, count as choices. Templates nested
        too deeply stay as they are.
    """
    choices: list[str] = []
    variables: dict[str, str] = {}

    def resolve(braces: re.Match[str]) -> str:
        dollar, inside = braces.groups()
        if dollar and "=" in inside:
            name, _, value = inside.partition("=")
            variables[name.strip()] = value.lstrip("!?").strip()[:_LONGEST_VALUE]
            return ""
        if dollar:
            return f"\ue002{inside}\ue003"
        if "|" not in inside and "$$" not in inside:
            return f"\ue000{inside}\ue001"
        options = [_WEIGHT.sub("", option, count=1).strip() for option in _COUNT.sub("", inside, count=1).split("|")]
        choices.extend(options)
        return options[0]

    if "{" in prompt:
        for _ in range(_MOST_DEPTH):
            prompt, count = _BRACES.subn(resolve, prompt)
            if not count:
                break
        prompt = _USE.sub(lambda use: variables.get(use[1].strip(), use[2] or ""), prompt).translate(_ESCAPED)
    if "__" in prompt:
        choices += [_name(wildcard) for wildcard in _WILDCARD.finditer(prompt)]
        prompt = _WILDCARD.sub(_name, prompt)
    return prompt, [choice.translate(_ESCAPED) for choice in choices if choice.strip()]


def _name(wildcard: re.Match[str]) -> str:
    """Return the words of a wildcard's name: "__colors/warm*__" is "colors warm"."""
    return " ".join(re.findall(r"[^\W_]+", wildcard[1]))
