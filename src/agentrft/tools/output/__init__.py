"""Tool outputs on their way to the model: decode → project → table → page → truncate, each step logged in bytes.

shape_output(raw, spec, limits)         what the model sees
output_spec_for(name, outputs)          which settings of `agent.outputs` a tool gets
KeptOutputs, ReadOutput                 whole outputs of an episode, and the tool that reads on in them
"""

from agentrft.tools.output.clean import OutputFlag, clean
from agentrft.tools.output.kept import KeptOutputs
from agentrft.tools.output.read_output import READ_OUTPUT, ReadOutput
from agentrft.tools.output.shaping import OutputLimits, ShapedOutput, shape_output
from agentrft.tools.output.spec import OutputSpec, ProjectSpec, output_spec_for

__all__ = [
    "READ_OUTPUT",
    "KeptOutputs",
    "OutputFlag",
    "OutputLimits",
    "OutputSpec",
    "ProjectSpec",
    "ReadOutput",
    "ShapedOutput",
    "clean",
    "output_spec_for",
    "shape_output",
]
