"""The page: its layout, and which handler each control calls."""

from __future__ import annotations

import socket
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
from starlette.middleware import Middleware

from prip.control.styles import styles
from prip.errors import InputError
from prip.miniature.vocabulary import SUBJECTS
from prip.options import option_fields

from ..comparison.workbench import Workbench
from . import markup
from .access import PageGuard
from .handlers import EXAMPLES, Handlers
from .pictures import Easel
from .session import DEFAULTS, MOST_ALTERNATIVES, MOST_IMAGES, Session

WAITING = 64
"""Most events in the queue; further ones are asked to try again."""
SESSIONS = 256
"""Most browser sessions kept, latest used first. A dropped session has its history back after a reload."""
DELETE_CACHE = (3600, 3600)
"""Seconds between clean-ups of Gradio's cache, and the age of the files deleted. The cache should stay empty."""

DEFAULT_NAME = "prip-mini"
SUBJECT_NAMES = tuple(subject.name for subject in SUBJECTS)
"""What prip-mini knows."""
OPTIONS = {option.name: option for option in option_fields()}

SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
MONO = ("ui-monospace", "SF Mono", "Menlo", "Consolas", "monospace")

PRESSED = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-index]");
  if (button) trigger("select", { index: Number(button.dataset.index) });
});
"""
"""Reports which button of a list was pressed."""


def page_file(name: str) -> str:
    """Return the text of page.css or page.js."""
    return (files(__package__) / name).read_text(encoding="utf-8")


def theme() -> gr.themes.Base:
    """Return the theme: the colours of page.css, and system fonts, so that nothing is downloaded."""
    base = gr.themes.Base(primary_hue="blue", neutral_hue="stone", text_size="lg", font=SANS, font_mono=MONO)
    colors = {
        "body_background_fill": "var(--ground)",
        "body_text_color": "var(--ink)",
        "body_text_color_subdued": "var(--quiet)",
        "block_background_fill": "transparent",
        "block_border_width": "0px",
        "block_shadow": "none",
        "block_padding": "0px",
        "block_label_text_color": "var(--ink)",
        "block_title_text_color": "var(--ink)",
        "block_title_text_weight": "600",
        "block_info_text_color": "var(--quiet)",
        "border_color_primary": "var(--line)",
        "border_color_accent": "var(--accent)",
        "input_background_fill": "var(--field)",
        "input_border_color": "var(--line)",
        "input_border_color_focus": "var(--accent)",
        "input_border_width": "1px",
        "input_placeholder_color": "var(--quiet)",
        "button_primary_background_fill": "var(--accent)",
        "button_primary_background_fill_hover": "var(--accent)",
        "button_primary_text_color": "var(--on-accent)",
        "button_secondary_background_fill": "var(--raised)",
        "button_secondary_background_fill_hover": "var(--raised)",
        "button_secondary_text_color": "var(--ink)",
        "slider_color": "var(--accent)",
        "checkbox_background_color": "var(--field)",
        "checkbox_background_color_selected": "var(--accent)",
        "checkbox_border_color": "var(--quiet)",
        "checkbox_border_color_selected": "var(--accent)",
    }
    known = set(vars(base))
    dark = {f"{name}_dark": value for name, value in colors.items() if f"{name}_dark" in known}
    return base.set(**colors, **dark)


def html(value: str, **options: Any) -> gr.HTML:
    """Return an HTML component styled only by page.css."""
    return gr.HTML(value, apply_default_css=False, **options)


def slider(name: str, label: str, *, step: float, maximum: float = 1, info: str | None = None) -> gr.Slider:
    """Return a slider for an option of `refine`, with its minimum and default."""
    option = OPTIONS[name]
    return gr.Slider(option.bounds.minimum or 0, maximum, option.default, step=step, label=label, info=info)


class Page:
    """The page of one workbench; `blocks` is Gradio's part of it.

    Args:
        easel: Draws the pictures; None without a generator.
        name: The checkpoint's name as shown.
    """

    def __init__(self, bench: Workbench, easel: Easel | None, name: str) -> None:
        self._bench = bench
        self._easel = easel
        with gr.Blocks(title="PRIP", analytics_enabled=False, delete_cache=DELETE_CACHE) as self.blocks:
            self.session = gr.State(Session())
            self.stored = gr.BrowserState([], storage_key="prip-history")
            html(markup.about(self._loaded(name), SUBJECT_NAMES if name == DEFAULT_NAME else ()), elem_id="head")
            with gr.Column(elem_id="flow"):
                with gr.Column(elem_id="ask", elem_classes="card"):
                    self._lay_out_prompt()
                with gr.Column(elem_id="result"):
                    with gr.Column(elem_id="refined", elem_classes="card"):
                        self._lay_out_refined()
                    with gr.Column(elem_id="pictures", elem_classes="card"):
                        self._lay_out_pictures()
                with gr.Column(elem_id="past", elem_classes="card"):
                    html("<h2>History</h2>", elem_classes="title")
                    self.history = html(markup.history_list(()), js_on_load=PRESSED)
                    self.clear = gr.Button("Clear history", elem_id="clear")
            self._connect()
        self.blocks.queue(max_size=WAITING, default_concurrency_limit=None)

    def _loaded(self, name: str) -> str:
        bench = self._bench
        parts = [name]
        if bench.generator is not None:
            parts.append(f"drawn by {bench.generator.name}")
        if bench.rewards:
            parts.append("scored by " + " and ".join(reward.name for reward in bench.rewards))
        return " · ".join(parts)

    def _lay_out_prompt(self) -> None:
        self.prompt = gr.Textbox(
            label="Your prompt",
            placeholder="a cat",
            lines=1,
            max_lines=8,
            autofocus=True,
            elem_id="prompt",
            html_attributes=gr.InputHTMLAttributes(enterkeyhint="go", spellcheck=True),
        )
        self.notice = html("", elem_id="notice")
        self.press = gr.Button("Refine", variant="primary", elem_id="press")
        self.examples = html(markup.example_list(EXAMPLES), js_on_load=PRESSED, elem_id="examples")
        self.refinement = gr.Checkbox(
            True, label="Refinement", info="Turn off to keep your prompt as it is.", elem_id="refinement"
        )
        self.strength = slider("strength", "Strength", step=0.05, info=OPTIONS["strength"].doc)
        self.styles = gr.Dropdown(
            list(styles()),
            value=[],
            multiselect=True,
            allow_custom_value=True,
            label="Styles",
            info="They follow your words as if you had typed them. Choose some or type your own.",
            elem_id="styles",
        )
        self.alternatives = slider("num_alternatives", "Alternatives", step=1, maximum=MOST_ALTERNATIVES)
        with gr.Accordion("More options", open=False, elem_id="more"):
            banned = f"{OPTIONS['banned_terms'].doc} Separate them by commas."
            self.banned = gr.Textbox(label="Never add", info=banned, placeholder="golden hour, bokeh")
            self.no_artists = gr.Checkbox(DEFAULTS.no_artists, label="No artists' names")
            info = OPTIONS["temperature"].doc
            self.temperature = slider("temperature", "Temperature", step=0.1, maximum=2, info=info)
            self.seed = gr.Number(DEFAULTS.seed, label="Seed", precision=0, info="Same seed, same text and pictures.")
            if self._easel is not None:
                self.images = gr.Slider(0, MOST_IMAGES, 2, step=1, label="Pictures of each prompt", info="0 for none.")

    def _lay_out_refined(self) -> None:
        html('<h2>Refined prompt</h2><p class="quiet"><ins>underlined</ins>: added</p>', elem_classes="title")
        self.marked = html(markup.marked_prompt(Session()), elem_id="marked")
        self.choices = html("", js_on_load=PRESSED, elem_id="choices")
        self.refined = gr.Textbox(
            label="Edit before drawing or copying",
            lines=1,
            max_lines=8,
            elem_id="refined-text",
            placeholder="appears here for you to edit",
        )
        with gr.Row(elem_id="actions"):
            self.copy = gr.Button("Copy", elem_id="copy")
            self.draw = gr.Button("Draw", elem_id="draw", visible=self._easel is not None)

    def _lay_out_pictures(self) -> None:
        html("<h2>Before and after</h2>", elem_classes="title")
        nothing = '<p class="quiet">This checkpoint has no generator: prompts are refined but not drawn.</p>'
        self.pictures = html(markup.pictures(None) if self._easel else nothing, elem_id="board")

    def _connect(self) -> None:
        fields = [self.prompt, self.refinement, self.strength, self.styles, self.alternatives, self.banned]
        fields += [self.no_artists, self.temperature, self.seed]
        if self._easel is not None:
            fields.append(self.images)
        status = [self.session, self.stored, self.notice, self.history]
        outputs = [*status, self.marked, self.refined, self.choices]
        private: dict[str, Any] = {"api_visibility": "private"}
        quick = {**private, "queue": False, "show_progress": "hidden"}
        slow = {**private, "show_progress": "minimal", "concurrency_limit": 1}
        draws: list[Any] = []
        handlers = Handlers(self._bench.refiner, self._easel)

        def then_draw(event: Any) -> None:
            event.then(None, js="() => window.prip.reveal()", **private)
            if self._easel is not None:
                event = event.then(handlers.settle, self.session, status, **quick).then(
                    handlers.draw,
                    [self.session, *fields],
                    [self.pictures, self.notice],
                    concurrency_id="draw",
                    **{**slow, "show_progress_on": [self.pictures]},
                )
                draws.append(event)

        for press in (self.press.click, self.prompt.submit):
            event = press(handlers.refine, [self.session, *fields], outputs, concurrency_id="refine", **slow)
            then_draw(event)
        event = self.examples.select(handlers.example, None, self.prompt, **quick)
        event = event.then(handlers.refine, [self.session, *fields], outputs, concurrency_id="refine", **slow)
        then_draw(event)
        self.refined.input(handlers.edit, [self.session, self.refined], [self.session, self.marked], **quick)
        for press in (self.draw.click, self.refined.submit):
            then_draw(press(handlers.edit, [self.session, self.refined], [self.session, self.marked], **quick))
        then_draw(self.choices.select(handlers.choose, self.session, outputs, **quick))
        event = self.history.select(handlers.restore, self.session, [self.prompt, *outputs], **quick)
        then_draw(event)
        for press in (
            *(self.press.click, self.prompt.submit, self.draw.click, self.refined.submit),
            *(self.examples.select, self.history.select, self.choices.select),
        ):
            press(None, cancels=draws, **private)
        self.clear.click(handlers.clear, self.session, [self.session, self.stored, self.history], **quick)
        self.copy.click(None, self.refined, None, js="(text) => window.prip.copy(text)", **private)
        self.blocks.load(handlers.load, [self.session, self.stored], [self.session, self.history], **quick)


def launch(blocks: gr.Blocks, guard: PageGuard, listening: socket.socket, share: bool = False) -> str | None:
    """Serve a page in a thread until `blocks.close()`. Return its public address, if `share`.

    Args:
        listening: Socket that reserves the port; closed here, for Gradio to open its own.

    Raises:
        InputError: Another program took the port in that moment.
    """
    port = listening.getsockname()[1]
    listening.close()
    try:
        _, _, public = blocks.launch(
            server_name=f"[{guard.host}]" if ":" in guard.host else guard.host,
            server_port=port,
            share=share,
            prevent_thread_lock=True,
            inline=False,
            quiet=True,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            enable_monitoring=False,
            mcp_server=False,
            pwa=False,
            allowed_paths=[str(guard.images)],
            max_file_size=1,
            state_session_capacity=SESSIONS,
            app_kwargs={"middleware": [Middleware(guard.wrap)]},
            theme=theme(),
            css=page_file("page.css"),
            js=page_file("page.js"),
        )
    except OSError as error:
        raise InputError(f"cannot serve on port {port} of {guard.host}: {error}") from error
    if public:
        guard.names |= {str(urlsplit(public).hostname)}
    return public
