"""Times beside others' in one process, and never of a kernel that is wrong.

`case` is what is timed, `peers` (with `jax_peer`) who it is timed beside, `agree` the comparison
with the reference that comes first, `turns` the timing, `measure` all of it; `stream` and
`first_call` time single steps and compilation; `report` and `picture` show what came out.
"""

from elman.benchmark.agree import Disagreement
from elman.benchmark.case import SHAPES, Case, Shape
from elman.benchmark.measure import Found, Plan, Row, measure

__all__ = ["SHAPES", "Case", "Disagreement", "Found", "Plan", "Row", "Shape", "measure"]
