"""How a report came about, in words."""

from __future__ import annotations

from edgevid_bench.report import Report

__all__ = ["method_lines"]

INTERVALS = """
Intervals are of 95 %. Of frames per second: Student's t over the rounds, after what all rows of a round have in
common is taken out, since that is the machine's drift (rounds are the blocks of a randomized block design);
comparing with other benches adds the drift again. Of latencies: a bootstrap over rounds and blocks of
neighbours; a percentile is left out where the samples do not carry it.
"""
RANK = """
Rank: one more than there are rows whose whole interval lies above. Rows whose intervals overlap are not told
apart.
"""
ROOFLINE = """
Roofline: cores ÷ CPU time a frame of the bare stages, each alone on one core and warm. Efficiency: end to end ÷
roofline.
"""
LABELS = """
Labels kept: the smaller of two shares of smoothed labels: of the Keras model's on the frames held out at
conversion, and of the fp32 variant's in this bench, on this clip.
"""
DISTURBED = """
A round is disturbed where other programs or a hypervisor took more than 5 % of the processor, or the machine
throttled: it is repeated up to twice, and if that does not help, the row is not valid
"""
ENERGY = """
Energy is what the machine's own meter says of the whole package or board, idle power included. Without a meter
there is no figure.
"""


def method_lines(report: Report) -> list[str]:
    """Return the paragraphs."""
    method = report.method
    video = "with annotated video" if method.video else "without writing video"
    runs = f"""
    End-to-end fps: real frames of the clip, up to {method.max_frames} a pass, decoded, classified and smoothed,
    {video}. Each row has at least {method.min_rounds} rounds and {method.min_secs:g} s; where it may be the fastest
    that keeps the labels, up to {method.max_rounds} rounds, until it is told apart or known to 1 %. A pass over the
    clip that takes three times as long as was asked for is cut short. A round is a process of its own, and the rows
    of a round are in random order (seed {method.seed}).
    """
    disturbed = f"{DISTURBED.rstrip()}{'; here that was allowed.' if method.allow_disturbed else '.'}"
    return [" ".join(text.split()) for text in (runs, INTERVALS, RANK, ROOFLINE, LABELS, disturbed, ENERGY)]
