"""The gradients of the parameters' tensors, from what a backward's walk leaves."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from elman.backends.cpu.gradient import Product, Products
from elman.backends.cpu.layout import COTANGENTS, KEPT, SUMS
from elman.backends.cpu.plan import Plan, weight_names
from elman.equation.sizes import number

if TYPE_CHECKING:
    from elman.backends.cpu.geometry import Geometry
    from elman.backends.cpu.walk import Given, Planes


class Piece(NamedTuple):
    """Rows of a tensor's gradient, and where they come from: the first column."""

    tensor: int
    row: int
    rows: int
    column: int


class Weights:
    """The plan of all gradients of parameters.

    Products of the same vector whose cotangents lie side by side, and whose weights do too, are one
    product into their tensor's gradient.
    """

    def __init__(self, plan: Plan, training: Plan):
        self.plan, self.training = plan, training
        self.columns = plan.sized.columns
        self.pieces: list[tuple[int, Piece]] = []
        self.runs: list[list[Piece]] = []
        for vector, found in self._by_vector().items():
            for run in self._runs(_joined(sorted(found, key=lambda p: p.column))):
                if len(run) == 1:
                    self.pieces.append((vector, run[0]))
                else:
                    rows = sum(p.rows for p in run)
                    self.runs.append(run)
                    self.pieces.append((vector, Piece(-len(self.runs), 0, rows, run[0].column)))
        self.sums = self._sums()
        self.tensors = sorted({p.tensor for _, p in self.pieces})
        self.whole = self._covered()
        self.again = self._again()
        self.products = Products(plan.sized.element)

    def _runs(self, pieces: list[Piece]) -> list[list[Piece]]:
        """Pieces side by side that are whole tensors with no other gradient: one product makes
        them all, and each takes its rows of it."""
        runs: list[list[Piece]] = []
        for piece in pieces:
            last = runs[-1][-1] if runs else None
            if (
                last is not None
                and last.column + last.rows == piece.column
                and self._is_alone(last)
                and self._is_alone(piece)
            ):
                runs[-1].append(piece)
            else:
                runs.append([piece])
        return runs

    def _is_alone(self, piece: Piece) -> bool:
        return piece.rows == self.plan.shapes[piece.tensor][0] and self.uses[piece.tensor] == 1

    def _by_vector(self) -> dict[int, list[Piece]]:
        plan, layout = self.plan, self.plan.sized.layout
        names = weight_names(plan.kernels)
        slots = {
            r.role[1]: layout.cotangents[r.value] for r in layout.program.roots
            if r.role[0] == "cotangent"
        }  # fmt: skip
        found: dict[int, list[Piece]] = {}
        for p in plan.kernels.schedule.backward.products:
            source = plan.places[names[p.weight]]
            slot = slots[p.cotangent].number
            rows = number(layout.sizes[COTANGENTS][slot], plan.sized.sizes)
            piece = Piece(source.tensors[0], source.row, rows, self.columns[COTANGENTS][slot])
            found.setdefault(p.vector, []).append(piece)
        self.uses = Counter(p.tensor for pieces in found.values() for p in pieces)
        return found

    def _sums(self) -> dict[int, list[Piece]]:
        """By tensor the pieces of the vectors' gradients, and where their sums stand."""
        plan, layout = self.plan, self.plan.sized.layout
        names = weight_names(plan.kernels)
        found: dict[int, list[Piece]] = {}
        roots = [r for r in layout.program.roots if r.role[0] == "vector"]
        for root, column in zip(roots, self.columns[SUMS], strict=True):
            source = plan.places[names[root.role[1]]]
            units = number(root.size, plan.sized.sizes)
            for tensor in source.tensors:
                found.setdefault(tensor, []).append(Piece(tensor, source.row, units, column))
        return {tensor: _joined(sorted(pieces)) for tensor, pieces in found.items()}

    def _covered(self) -> set[int]:
        """The tensors of which every row is written once."""
        rows: dict[int, list[tuple[int, int]]] = {}
        for _, p in self.pieces:
            rows.setdefault(p.tensor, []).append((p.row, p.row + p.rows))
        whole = set()
        for tensor, spans in rows.items():
            if tensor < 0:
                whole.add(tensor)
                continue
            spans.sort()
            ends = [0, *(end for _, end in spans)]
            if ends[-1] == self.plan.shapes[tensor][0] and all(
                start == end for (start, _), end in zip(spans, ends, strict=False)
            ):
                whole.add(tensor)
        return whole

    def begun(
        self,
        geometry: Geometry,
        given: Given,
        planes: Planes,
        dual: Tensor,
        made: dict[str, Tensor],
        live: list,
    ) -> tuple[dict[int, Tensor], list[Product]]:
        """Memory for the matrices' gradients, and the products that fill it once the walk back is
        over; what these read is put in `live`."""
        plan = self.plan
        grown: dict[int, Tensor] = {}
        for tensor in self.tensors:
            run = self.runs[-tensor - 1] if tensor < 0 else None
            rows, columns = plan.shapes[run[0].tensor if run else tensor]
            rows = sum(p.rows for p in run) if run else rows
            width = -(-columns // plan.sized.panel) * plan.sized.panel
            new = dual.new_empty if tensor in self.whole else dual.new_zeros
            grown[tensor] = new(rows, width)
        values: dict[int, tuple[Tensor, int, int]] = {}
        size, start, apart = plan.bytes, dual.data_ptr(), dual.stride(0)
        jobs = []
        for (vector, piece), again in zip(self.pieces, self.again, strict=True):
            if vector not in values:
                values[vector] = self._values(vector, geometry, given, planes, made)
                live.append(values[vector][0])
            held, place, units = values[vector]
            target = grown[piece.tensor]
            jobs.append(
                Product(
                    geometry.total, start + piece.column * size, apart, piece.rows,
                    held.data_ptr() + place * size, held.stride(0), units,
                    target.data_ptr() + piece.row * target.stride(0) * size, target.stride(0),
                    again,
                )
            )  # fmt: skip
        return grown, jobs

    def gradients(self, grown: dict[int, Tensor], zeroed: Tensor) -> list[Tensor | None]:
        """The gradient of each of the parameters' tensors, when all has run; None where none
        came."""
        plan = self.plan
        result: list[Tensor | None] = [None] * len(plan.shapes)
        for tensor, whole in grown.items():
            if tensor >= 0:
                columns = plan.shapes[tensor][1]
                result[tensor] = whole if whole.shape[1] == columns else whole[:, :columns]
                continue
            row = 0
            for p in self.runs[-tensor - 1]:
                part, columns = whole.narrow(0, row, p.rows), plan.shapes[p.tensor][1]
                result[p.tensor] = part if part.shape[1] == columns else part[:, :columns]
                row += p.rows
        if self.sums:
            self._add_sums(zeroed, result)
        return result

    def _again(self) -> list[bool]:
        """For each piece whether its rows were written before: a weight that several products
        share has the sum of their gradients."""
        written: dict[int, list[tuple[int, int]]] = {}
        again = []
        for _, p in self.pieces:
            spans = written.setdefault(p.tensor, [])
            again.append(any(p.row < end and start < p.row + p.rows for start, end in spans))
            spans.append((p.row, p.row + p.rows))
        return again

    def _values(self, vector: int, geometry, given, planes, made) -> tuple[Tensor, int, int]:
        """The values of a product's vector at all steps and rows: what holds them, the element
        where they begin, and how many there are a row."""
        plan = self.plan
        kernels = plan.kernels
        node, depth = kernels.inner.nodes[vector], kernels.depth
        units = number(node.dims[0], plan.sized.sizes) if node.dims else 1
        if node.op == "input":
            values = given.steps[node.attribute("name")]
            if values.dim() != 2 or not values.is_contiguous() or values.is_neg():
                values = values.reshape(geometry.total, units).contiguous().resolve_neg()
            return values, 0, units
        if node.op in ("state", "delayed"):
            ago = 1 if node.op == "state" else node.attribute("steps")
            plane, before = planes.states[node.attribute("name")], geometry.before(ago, depth)
            if isinstance(before, slice):
                return plane, before.start * plane.stride(0), units
            return plane.index_select(0, before), 0, units
        if f"factor:{vector}" in made:
            return made[f"factor:{vector}"], 0, units
        slot = kernels.kept[vector]
        return planes.kept, self.training.sized.columns[KEPT][slot.number], units

    def _add_sums(self, zeroed: Tensor, result: list[Tensor | None]) -> None:
        plan = self.plan
        width = plan.sized.width[SUMS]
        total = zeroed.narrow(0, 0, width)
        for i in range(1, plan.count):
            total += zeroed.narrow(0, i * width, width)
        taken: set[int] = set()
        for tensor, pieces in self.sums.items():
            shape = plan.shapes[tensor]
            rows = shape[0] if shape else 1
            first = pieces[0].column
            if len(pieces) == 1 and pieces[0].rows == rows:
                gradient = total.narrow(0, first, rows)
                # Two biases of one sum have one gradient, but not one memory.
                gradient = gradient.clone() if first in taken else gradient
                gradient = gradient if shape else gradient.view(shape)
                taken.add(first)
            else:
                gradient = total.new_zeros(rows)
                for p in pieces:
                    gradient[p.row : p.row + p.rows] += total[p.column : p.column + p.rows]
                gradient = gradient.view(shape)
            before = result[tensor]
            result[tensor] = gradient if before is None else before + gradient


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Neighbours in both places as one."""
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if (
            last
            and last.tensor == piece.tensor
            and (last.row + last.rows, last.column + last.rows) == (piece.row, piece.column)
        ):
            joined[-1] = last._replace(rows=last.rows + piece.rows)
        else:
            joined.append(piece)
    return joined
