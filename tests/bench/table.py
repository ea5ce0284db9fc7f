"""What engine.py measured, as Markdown."""

import re
import statistics

SHIPPED = "torchcam as shipped"
BUSY = 0.5  # the load average before a run above which other processes distort it


def ratio(others: list[float], seconds: list[float]) -> str:
    """The median over the rounds of how many times longer the others take."""
    return f"{statistics.median(a / b for a, b in zip(others, seconds, strict=True)):.2f}"


def table(report: dict) -> str:
    """The report as Markdown."""
    about, lines = report["machine"], []
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    where = f"{about['gpu'] or about['cpu']}, {about['cores']} cores, {len(about['jax_devices'])} JAX devices"
    lines.append(f"{where}; {versions}")
    if about["load_before"] > BUSY:
        lines += ["", f"**The machine was busy (load {about['load_before']:.1f}): these figures are a trial.**"]
    arguments = report["arguments"]
    lines += ["", f"Medians of {arguments['rounds']} interleaved rounds; SS-CAM with N = {arguments['samples']}.", ""]
    for network in report["networks"]:
        restricted = network["restricted_to"]
        said = f"the first {restricted}" if restricted else "all"
        lines += [f"### {network['network']}, {network['layer']}" + " (random weights)" * network["random_weights"], ""]
        lines += [
            f"{network['channels']} channels, {network['not_constant']} of them not constant; scored: {said}.",
            "",
        ]
        lines += ["| method | side | passes | seconds | ms a pass | times faster than torchcam | over the floor |"]
        lines += ["|---|---|---:|---:|---:|---:|---:|"]
        sides = {(side["method"], side["side"]): side for side in network["sides"]}
        for (method, name), side in sides.items():
            seconds = side["seconds"]
            suffix = re.search(r", (?:float32|bfloat16)|$", name).group()
            floor = sides.get((method, f"floor{suffix}"))
            over = "" if floor is None or not name.startswith("ours") else ratio(seconds, floor["seconds"])
            cells = [method, name + f" ({side['note']})" * bool(side["note"]), side["passes"]]
            cells += [f"{statistics.median(seconds):.3g}", f"{1e3 * statistics.median(seconds) / side['passes']:.1f}"]
            cells += [ratio(sides[method, SHIPPED]["seconds"], seconds), over]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
            if "flops_a_pass" in network and name == "ours, common noise, bfloat16" and method == "SS-CAM":
                rate = network["flops_a_pass"] * side["passes"] / statistics.median(seconds)
                peak = f"Share of the measured matrix peak, {name}: {rate / about['matrix_peak']:.1%}"
        lines += [""] + ([peak, ""] if "flops_a_pass" in network else [])
        lines += ["Compilation, s: " + "; ".join(f"{k} {v:.1f}" for k, v in network["compile_seconds"].items()), ""]
        for task, first in network.get("first_result", {}).items():
            cells = "; ".join(f"{side} {answer['seconds']:.1f}" for side, answer in first.items())
            lines += [f"First result of a cold process, {task}, s: {cells}", ""]
        memory = {side: {k: v / 2**20 for k, v in answer.items()} for side, answer in network.get("memory", {}).items()}
        if memory:
            peaks = "; ".join(f"{side} {m['run']:.0f}, {m['process']:.0f}" for side, m in memory.items())
            lines += [
                "Peak memory at batch 32, all channels, N = 2, MiB (the run above the loaded network; the process):"
            ]
            lines += [peaks, ""]
        differences = network["largest_difference_from_torchcam"]
        lines += [
            "Largest difference from torchcam's map: " + "; ".join(f"{k} {v:.1g}" for k, v in differences.items())
        ]
        lines += [""]
    return "\n".join(lines)
