"""The page itself: what stands where, and which handler each control calls."""

from __future__ import annotations

import socket
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
from starlette.middleware import Middleware

from prip.control.styles import styles
from prip.errors import InputError

from ..comparison.workbench import Workbench
from . import markup
from .access import PageGuard
from .handlers import EXAMPLES, Handlers
from .pictures import Easel
from .session import MOST_ALTERNATIVES, MOST_IMAGES, Session

WAITING = 64
"""Presses that may wait for their turn; who comes later is told to try again."""
SESSIONS = 256
"""Browsers whose session is kept; the oldest goes first, and finds its history again when its page is reloaded."""
DELETE_CACHE = (3600, 3600)
"""Seconds after which Gradio looks for files in its cache, and how old those are that go. There should be none."""

SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
MONO = ("ui-monospace", "SF Mono", "Menlo", "Consolas", "monospace")

PRESSED = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-place]");
  if (button) trigger("select", { place: Number(button.dataset.place) });
});
"""
"""Tells Python which button of a list was pressed."""


def page_file(name: str) -> str:
    """Return one of the files that come with the page: page.css, page.js."""
    return (files(__package__) / name).read_text(encoding="utf-8")


def theme() -> Any:
    """Return the theme: the colours of page.css, and fonts of the reader's own machine, so that nothing is fetched."""
    base = gr.themes.Base(primary_hue="blue", neutral_hue="stone", text_size="lg", font=SANS, font_mono=MONO)
    own = {
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
    dark = {f"{name}_dark": value for name, value in own.items() if f"{name}_dark" in known}
    return base.set(**own, **dark)


def html(value: str, **options: Any) -> gr.HTML:
    """Return HTML of ours, styled by page.css alone."""
    return gr.HTML(value, apply_default_css=False, **options)


class Page:
    """The page of one workbench. `blocks` is Gradio's."""

    def __init__(self, bench: Workbench, easel: Easel | None, name: str) -> None:
        """easel: None where the bench has no generator. name: of the checkpoint, as it is shown."""
        self._bench = bench
        self._easel = easel
        with gr.Blocks(title="PRIP", analytics_enabled=False, delete_cache=DELETE_CACHE) as self.blocks:
            self.session = gr.State(Session())
            self.kept = gr.BrowserState([], storage_key="prip-history")
            html(f"<h1>PRIP</h1><p>{markup.safe(self._what_is_loaded(name))}</p>", elem_id="head")
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
            self._connect()
        self.blocks.queue(max_size=WAITING, default_concurrency_limit=None)

    def _what_is_loaded(self, name: str) -> str:
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
        self.examples = html(markup.button_list(EXAMPLES, "Examples"), js_on_load=PRESSED, elem_id="examples")
        self.refinement = gr.Checkbox(
            True, label="Refinement", info="off: your prompt stays as it is", elem_id="refinement"
        )
        self.strength = gr.Slider(0, 1, 1, step=0.05, label="Strength", info="how much is added")
        self.styles = gr.Dropdown(
            list(styles()),
            value=[],
            multiselect=True,
            allow_custom_value=True,
            label="Styles",
            info="kept as if you had typed them; or your own",
            elem_id="styles",
        )
        self.alternatives = gr.Slider(1, MOST_ALTERNATIVES, 1, step=1, label="Alternatives")
        with gr.Accordion("More options", open=False, elem_id="more"):
            self.banned = gr.Textbox(label="Never add", info="words, between commas", placeholder="golden hour, bokeh")
            self.no_artists = gr.Checkbox(False, label="No artists' names")
            self.temperature = gr.Slider(0, 2, 0, step=0.1, label="Temperature", info="0: always the best text")
            self.seed = gr.Number(0, label="Seed", precision=0, info="same seed, same text and pictures")
            if self._easel is not None:
                self.images = gr.Slider(0, MOST_IMAGES, 2, step=1, label="Pictures of each prompt", info="0: none")

    def _lay_out_refined(self) -> None:
        html('<h2>Refined prompt</h2><p class="quiet"><ins>underlined</ins>: what was added</p>', elem_classes="title")
        self.marked = html(markup.marked_prompt(Session()), elem_id="marked")
        self.choices = html("", js_on_load=PRESSED, elem_id="choices")
        self.refined = gr.Textbox(
            label="Edit it before it is drawn or copied",
            lines=1,
            max_lines=8,
            elem_id="refined-text",
            placeholder="comes here, and may be changed",
        )
        with gr.Row(elem_id="actions"):
            self.copy = gr.Button("Copy", elem_id="copy")
            self.draw = gr.Button("Draw", elem_id="draw", visible=self._easel is not None)

    def _lay_out_pictures(self) -> None:
        html("<h2>Before and after</h2>", elem_classes="title")
        nothing = '<p class="quiet">This checkpoint has no generator: prompts are refined, and nothing is drawn.</p>'
        self.pictures = html(markup.pictures(None) if self._easel else nothing, elem_id="board")

    def _connect(self) -> None:
        fields = [self.prompt, self.refinement, self.strength, self.styles, self.alternatives, self.banned]
        fields += [self.no_artists, self.temperature, self.seed]
        if self._easel is not None:
            fields.append(self.images)
        told = [self.session, self.kept, self.notice, self.history]
        shown = [*told, self.marked, self.refined, self.choices]
        private: dict[str, Any] = {"api_visibility": "private"}
        quick = {**private, "queue": False, "show_progress": "hidden"}
        slow = {**private, "show_progress": "minimal", "concurrency_limit": 1}
        draws: list[Any] = []
        handlers = Handlers(self._bench.refiner, self._easel)

        def then_draw(event: Any) -> None:
            event.then(None, js="() => window.prip.reveal()", **private)
            if self._easel is not None:
                event = event.then(handlers.settle, self.session, told, **quick).then(
                    handlers.draw,
                    [self.session, *fields],
                    [self.pictures, self.notice],
                    concurrency_id="draw",
                    **{**slow, "show_progress_on": [self.pictures]},
                )
                draws.append(event)

        for press in (self.press.click, self.prompt.submit):
            event = press(handlers.refine, [self.session, *fields], shown, concurrency_id="refine", **slow)
            then_draw(event)
        event = self.examples.select(handlers.example, None, self.prompt, **quick)
        event = event.then(handlers.refine, [self.session, *fields], shown, concurrency_id="refine", **slow)
        then_draw(event)
        self.refined.input(handlers.edit, [self.session, self.refined], [self.session, self.marked], **quick)
        for press in (self.draw.click, self.refined.submit):
            then_draw(press(handlers.edit, [self.session, self.refined], [self.session, self.marked], **quick))
        then_draw(self.choices.select(handlers.choose, self.session, shown, **quick))
        event = self.history.select(handlers.restore, self.session, [self.prompt, *shown], **quick)
        then_draw(event)
        for press in (
            *(self.press.click, self.prompt.submit, self.draw.click, self.refined.submit),
            *(self.examples.select, self.history.select, self.choices.select),
        ):
            press(None, cancels=draws, **private)
        self.copy.click(None, self.refined, None, js="(text) => window.prip.copy(text)", **private)
        self.blocks.load(handlers.load, [self.session, self.kept], [self.session, self.history], **quick)


def launch(blocks: gr.Blocks, guard: PageGuard, listening: socket.socket, share: bool = False) -> str | None:
    """Serve a page in a thread, until `blocks.close()`. Return its public address, None where it has none.

    guard: with the host to listen on, and the folder whose files the page may ask for. listening: holds the port until
    now, and is closed. Raises InputError when somebody else takes it in that moment.
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
