"""How far back a network of delays reads: an order, given or found by an information criterion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from elman.errors import InputError
from elman.tasks.forecast.series import Series

_MOST_WITH_INPUTS = 8  # delays of the output, delays of an input, dead time
_MOST_ALONE, _SEASONS = 16, 2  # delays of an output without inputs; or so many seasons
_ROWS_A_WEIGHT = 10  # that the largest order must have at least
_MOST_ROWS = 200_000  # that orders are compared on
_CLEARLY = 10.0  # by which the criterion must fall for a series to be told on another scale


@dataclass(frozen=True)
class Order:
    r"""Which delays are read: of the output y and of every input u.

    .. math::

        y_{t-1}, …, y_{t-n_a}, \qquad u_{t-n_k}, …, u_{t-n_k-n_b+1}

    Args:
        outputs: :math:`n_a` >= 0.
        inputs: :math:`n_b` >= 0, values of each input.
        dead: :math:`n_k` >= 0, steps before an input acts.

    Example:
        >>> Order(4, 2, 3).reach, str(Order(4, 2, 3))
        (4, '4,2,3')
    """

    outputs: int
    inputs: int = 0
    dead: int = 0

    @property
    def reach(self) -> int:
        """The steps before the present one that are read, at least 1."""
        return max(self.outputs, self.dead + self.inputs - 1 if self.inputs else 0, 1)

    def count(self, inputs: int) -> int:
        """Return the number of values read, with so many inputs."""
        return self.outputs + self.inputs * inputs

    def __str__(self) -> str:
        return f"{self.outputs},{self.inputs},{self.dead}"

    @classmethod
    def read(cls, text: str, inputs: int) -> Order:
        """Return the order that a user wrote: "na", "na,nb" or "na,nb,nk".

        Args:
            text: "4,2,3" is y at delays 1 to 4 and each input at delays 3 and 4; "4,2" the inputs
                at 0 and 1; "4" the inputs at 0 to 3.
            inputs: number of inputs; of none, nb and nk are 0.

        Raises:
            InputError: it is none of these.

        Example:
            >>> Order.read("4,2", inputs=1)
            Order(outputs=4, inputs=2, dead=0)
        """
        try:
            numbers = [int(part) for part in text.split(",")]
        except ValueError:
            numbers = []
        if not 1 <= len(numbers) <= 3 or min(numbers) < 0:
            raise InputError(
                f"forecast: lags is {text!r}; expected auto, or whole numbers such as 4 or 4,2 or "
                "4,2,3: values of the target, values of each input, and steps before an input acts."
            )
        outputs, values, dead = (*numbers, *(numbers[0], 0)[len(numbers) - 1 :])
        found = cls(outputs, values, dead) if inputs else cls(outputs)
        if found.count(inputs) < 1:
            raise InputError(f"forecast: lags is {text!r}, so nothing would be read.")
        return found


def table(series: Sequence[Series], order: Order) -> tuple[np.ndarray, np.ndarray]:
    """Return what an order reads at every step of some series, and the output there.

    Args:
        series: their inputs are what is known up to the origin and then what is known ahead.
        order: of the delays.

    Returns:
        (rows, values) with the delays of y first, then those of each input, delay by delay; and
        (rows,). Rows with a missing value are left out. An input that is known up to the origin
        only has its value of delay 1 at delay 0 too, as one step ahead is told.
    """
    read, told = [], []
    for one in series:
        steps = np.arange(order.reach, len(one))
        delays = [one.y[steps - k, None] for k in range(1, order.outputs + 1)]
        for k in range(order.dead, order.dead + order.inputs):
            # what is known up to the origin only is not known yet at delay 0
            delays += [one.past[steps - max(k, 1)], one.future[steps - k]]
        rows = np.concatenate([*delays, one.y[steps, None]], 1)
        rows = rows[np.isfinite(rows).all(1)]
        read.append(rows[:, :-1])
        told.append(rows[:, -1])
    return np.concatenate(read), np.concatenate(told)


@dataclass(frozen=True)
class Choice:
    """An order, and how it was found.

    Args:
        order: the best.
        criterion: its value, corrected AIC.
        rows: that all orders were compared on.
        tried: number of orders.
        deviation: root mean squared error of one step of the linear model on these rows.
    """

    order: Order
    criterion: float
    rows: int
    tried: int
    deviation: float


def choose(series: Sequence[Series], *, season: int = 1) -> Choice:
    r"""Find the order of the linear model with the least corrected AIC (AICc).

    Every order is fitted by least squares to the same n rows; with p weights, the constant among
    them, and the mean squared error s² of one step,

    .. math::

        \mathrm{AICc} = n \ln s^2 + 2 (p + 1) + \frac{2 (p + 1)(p + 2)}{n - p - 2}

    Args:
        series: the training part, scaled; rows with missing values are left out.
        season: steps of a season, which the delays of a series without inputs may reach over.

    Raises:
        InputError: too few rows for any order.

    Source: Hurvich & Tsai 1989, "Regression and time series model selection in small samples".
    """
    inputs = series[0].past.shape[1] + series[0].future.shape[1]
    largest = _largest(series, inputs, season)
    read, told = table(_thinned(series, largest), largest)
    rows = len(told)
    if rows < 4:
        raise InputError(
            f"forecast: only {rows} steps of the training part have all values before them; give "
            "more data, or lags."
        )
    names = [("y", k) for k in range(1, largest.outputs + 1)]
    names += [("u", k) for k in range(largest.inputs) for _ in range(inputs)]
    # everything about least squares on any of the columns is in this triangle
    r = np.asarray(np.linalg.qr(np.column_stack([read, np.ones(rows), told]), mode="r"))
    best: Choice | None = None
    tried = 0
    for order in _orders(largest, inputs):
        columns = [i for i, name in enumerate(names) if _reads(order, name)] + [len(names)]
        weights = len(columns) + 1
        if rows - weights - 1 < 1:
            continue
        square = _squared_error(r, columns) / rows
        floor = 1e-20  # a series told exactly: the smallest order that does it
        value = rows * np.log(max(square, floor)) + 2 * weights
        value += 2 * weights * (weights + 1) / (rows - weights - 1)
        tried += 1
        if best is None or value < best.criterion - 1e-9:
            best = Choice(order, float(value), rows, tried, float(np.sqrt(square)))
    if best is None:
        raise InputError("forecast: too few values to find lags from; give lags.")
    return Choice(best.order, best.criterion, rows, tried, best.deviation)


def _squared_error(r: np.ndarray, columns: Sequence[int]) -> float:
    left, right = r[:, columns], r[:, -1]
    weights = np.linalg.lstsq(left, right, rcond=None)[0]
    return float(np.square(right - left @ weights).sum())


def _reads(order: Order, name: tuple[str, int]) -> bool:
    kind, delay = name
    if kind == "y":
        return delay <= order.outputs
    return order.dead <= delay < order.dead + order.inputs


def _largest(series: Sequence[Series], inputs: int, season: int) -> Order:
    """The order that is just allowed; `inputs` of it counts from delay 0."""
    rows = sum(len(s) for s in series)
    room = max(1, rows // (_ROWS_A_WEIGHT * (1 + inputs)))
    shortest = max(1, min(len(s) for s in series) // 2 - 1)
    if not inputs:
        wanted = max(_MOST_ALONE, _SEASONS * season) if season > 1 else _MOST_ALONE
        return Order(max(1, min(wanted, room, shortest, 400)))
    delays = max(1, min(_MOST_WITH_INPUTS, room, shortest // 2))
    return Order(delays, min(2 * delays, shortest), 0)


def _orders(largest: Order, inputs: int) -> Iterator[Order]:
    """All orders up to the largest, the smaller first."""
    if not inputs:
        yield from (Order(n) for n in range(1, largest.outputs + 1))
        return
    most = largest.outputs
    for outputs in range(most + 1):
        for dead in range(min(most, largest.inputs - 1) + 1):
            for values in range(1, min(most, largest.inputs - dead) + 1):
                yield Order(outputs, values, dead)


def _thinned(series: Sequence[Series], largest: Order) -> Sequence[Series]:
    """Of very many steps the first part of every series."""
    every = sum(len(s) for s in series)
    if every <= _MOST_ROWS:
        return series
    part = _MOST_ROWS / every
    return [s.part(0, max(largest.reach + 1, round(part * len(s)))) for s in series]


def steadier(series: Sequence[Series]) -> str:
    r"""Return the scale on which a linear model's errors are most nearly of one size.

    Values that spread the more the larger they are are steadier as roots or logarithms. With g the
    change and s² the mean squared error of one step of g(y), each with the order that `choose`
    finds, the density of y itself gives

    .. math::

        n \ln s^2 + \mathrm{penalty} - 2 \sum_t \ln g'(y_t), \qquad
        g(y) = y, \; \sqrt y, \; \ln y

    and a change must lower this by 10 for each of the series together.

    Args:
        series: the training part in its own units; roots need all values >= 0, logarithms > 0.

    Returns:
        "standard", "sqrt" or "log".

    Example:
        >>> import numpy as np
        >>> rng, none = np.random.default_rng(0), np.zeros((300, 0))
        >>> steps = 1 + rng.normal(size=300).cumsum() / 10
        >>> [steadier([Series("y", 0, y, none, none)]) for y in (steps, np.exp(steps))]
        ['standard', 'log']

    Source: Box & Cox 1964, "An analysis of transformations", with the criterion of `choose`.
    """
    every = np.concatenate([s.y[np.isfinite(s.y)] for s in series])
    found, least = "standard", np.inf
    if not len(every) or every.min() < 0 or every.max() == every.min():
        return found
    positive = every[every > 0].min() / 2
    kinds = {"standard": lambda y: y, "sqrt": np.sqrt, "log": np.log}
    for name, change in kinds.items():
        if name == "log" and every.min() <= 0:
            continue
        changed = [replace(s, y=change(s.y)) for s in series]
        try:
            value, rows = _criterion(changed, series, name, positive)
        except InputError:
            return "standard"  # too short to tell
        if value < least - (_CLEARLY if name != "standard" else 0.0) and rows:
            found, least = name, value
    return found


def _criterion(
    changed: Sequence[Series], series: Sequence[Series], name: str, positive: float
) -> tuple[float, int]:
    """The criterion of the best order on a changed scale, as one of the series themselves."""
    choice = choose(changed)
    inputs = series[0].past.shape[1] + series[0].future.shape[1]
    largest = _largest(series, inputs, 1)
    told = table(_thinned(series, largest), largest)[1]
    y = np.maximum(told, positive)  # at 0 the slope of a root has no end
    slopes = {"standard": 0.0, "sqrt": -np.log(2 * np.sqrt(y)).sum(), "log": -np.log(y).sum()}
    return choice.criterion - 2.0 * float(slopes[name]), choice.rows
