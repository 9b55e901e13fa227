"""Makes the small sets of data of our own: digits.jsonl, outfits.csv, visitors.csv, numbers.csv.

    python elman/demo_data/make.py FOLDER

**digits.jsonl** has 1,000 pictures of 8 × 8 pixels, 0 to 9 dark, and the word for the digit that
each shows. A digit of 5 × 7 dots is put somewhere on the 8 × 8, each of its dots has a darkness
of its own between 4 and 9 and is missing once in twelve, and each other dot is 1 to 4 dark once in
six.

**outfits.csv** says what was worn on the days of 260 weeks. From Monday to Friday one of five
outfits is worn that has not been worn in the same week yet: what was worn is in the wash. The suit
is for Monday or Tuesday in half of the weeks. On Saturday it is the tracksuit, and on Sunday the
linen suit if the suit was worn in the week, else the jumper. On one day in twelve anything is worn.

**visitors.csv** counts the visitors of two museums, day by day over two years. Saturdays and
Sundays draw more, on Mondays the museum by the harbour is shut. It rains for days or not at all,
which fills the museum in town and empties the one by the harbour; on a holiday both have half as
many again, on a free day twice as many, and a free holiday is no fuller than a free day, since
there is no room.

**numbers.csv** writes 2,000 whole numbers below a million in digits, in English words (small
letters, divided by blanks, without "and") and in Chinese numerals. Every count of digits from 1 to
6 is as likely as any other, as far as there are so many numbers.
"""

from __future__ import annotations

import csv
import json
import math
import random
import sys
from datetime import date, timedelta
from pathlib import Path

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DOTS = (
    "01110 10001 10011 10101 11001 10001 01110",
    "00100 01100 00100 00100 00100 00100 01110",
    "01110 10001 00001 00110 01000 10000 11111",
    "01110 10001 00001 00110 00001 10001 01110",
    "00010 00110 01010 10010 11111 00010 00010",
    "11111 10000 11110 00001 00001 10001 01110",
    "00110 01000 10000 11110 10001 10001 01110",
    "11111 00001 00010 00100 01000 01000 01000",
    "01110 10001 10001 01110 10001 10001 01110",
    "01110 10001 10001 01111 00001 00010 01100",
)
WEEKDAYS = ("suit", "shirt", "jeans", "dress", "cardigan")
WEEKEND = ("tracksuit", "linen", "jumper")
# Visitors of a usual day, factors from Monday to Sunday, and what rain does.
MUSEUMS = {
    "town": (420, (0.6, 0.7, 0.8, 0.8, 1.0, 1.7, 1.6), 1.0),
    "harbour": (260, (0.0, 0.7, 0.7, 0.8, 1.0, 2.0, 2.2), -1.2),
}


def digit(number: int, draw: random.Random) -> list[int]:
    """Draw a picture of a digit, row by row."""
    down, right = draw.randrange(2), draw.randrange(4)
    picture = []
    rows = DOTS[number].split()
    for y in range(8):
        for x in range(8):
            inside = 0 <= y - down < 7 and 0 <= x - right < 5
            dark = inside and rows[y - down][x - right] == "1"
            if dark:
                picture.append(0 if draw.random() < 1 / 12 else draw.randint(4, 9))
            else:
                picture.append(draw.randint(1, 4) if draw.random() < 1 / 6 else 0)
    return picture


def digits(count: int = 1000, seed: int = 1) -> list[dict[str, object]]:
    """Draw pictures of digits, each with its word."""
    draw = random.Random(seed)
    numbers = [i % 10 for i in range(count)]
    draw.shuffle(numbers)
    return [{"pixels": digit(number, draw), "word": WORDS[number]} for number in numbers]


def week(draw: random.Random) -> list[str]:
    """Draw what is worn from Monday to Sunday."""
    left = list(WEEKDAYS)
    wears_suit = draw.random() < 0.5
    suit_on = draw.randrange(2) if wears_suit else None
    left.remove("suit")
    worn: list[str] = []
    for day in range(5):
        if draw.random() < 1 / 12:
            chosen = draw.choice(WEEKDAYS + WEEKEND)
        elif day == suit_on:
            chosen = "suit"
        else:
            chosen = draw.choice([outfit for outfit in left if outfit not in worn] or left)
        worn.append(chosen)
    for usual in ("tracksuit", "linen" if "suit" in worn else "jumper"):
        anything = draw.random() < 1 / 12
        worn += [draw.choice(WEEKDAYS + WEEKEND) if anything else usual]
    return worn


def outfits(weeks: int = 260, seed: int = 1) -> list[tuple[str, str, str]]:
    """Draw week, day and what was worn, a row a day."""
    draw = random.Random(seed)
    monday = date(2020, 1, 6)
    rows = []
    for number in range(weeks):
        for day, worn in enumerate(week(draw)):
            today = monday + timedelta(days=7 * number + day)
            year, of_year, _ = today.isocalendar()
            rows.append((f"{year}-W{of_year:02}", today.isoformat(), worn))
    return rows


def visitors(days: int = 730, seed: int = 1) -> list[tuple[str, str, int, int, int]]:
    """Draw museum, day, visitors, whether it is a holiday and whether entry is free."""
    draw = random.Random(seed)
    first = date(2021, 1, 4)
    rain, weather = 0.0, []
    for _ in range(days):
        rain = 0.7 * rain + draw.gauss(0.0, 0.25)
        weather.append(rain)
    holidays = {d for d in range(days) if draw.random() < 0.03}
    free = {museum: {d for d in range(days) if draw.random() < 0.04} for museum in MUSEUMS}
    rows = []
    for museum, (usual, by_weekday, likes_rain) in MUSEUMS.items():
        for d in range(days):
            day = first + timedelta(days=d)
            season = 1 + 0.3 * math.cos(2 * math.pi * (d - 200) / 365.25)
            fuller = 2.0 if d in free[museum] else 1.5 if d in holidays else 1.0
            expected = usual * by_weekday[day.weekday()] * season * fuller
            expected *= math.exp(likes_rain * weather[d] + draw.gauss(0.0, 0.06))
            row = (museum, day.isoformat(), round(expected), int(d in holidays))
            rows.append((*row, int(d in free[museum])))
    return rows


TEENS = ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen",
         "eighteen", "nineteen")  # fmt: skip
TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
NUMERALS = "零一二三四五六七八九"


def english(number: int) -> str:
    """Write a number below a million in words."""
    if number < 10:
        return WORDS[number]
    if number < 20:
        return TEENS[number - 10]
    for base, name in ((1000, "thousand"), (100, "hundred")):
        high, low = divmod(number, base)
        if high:
            return f"{english(high)} {name}" + (f" {english(low)}" if low else "")
    tens, ones = divmod(number, 10)
    return TENS[tens] + (f" {WORDS[ones]}" if ones else "")


def chinese(number: int) -> str:
    """Write a number below a hundred million in Chinese numerals."""
    if not number:
        return NUMERALS[0]
    written = ""
    for base, sign in ((10_000, "万"), (1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit, number = divmod(number, base)
        if digit:
            written += (chinese(digit) if base > 1000 else NUMERALS[digit]) + sign
        elif written and number and not written.endswith("零"):
            written += "零"
    return written[1:] if written.startswith("一十") else written


def numbers(count: int = 2000, seed: int = 1) -> list[tuple[int, str, str]]:
    """Draw numbers, each once, with their words and numerals."""
    draw = random.Random(seed)
    drawn: dict[int, None] = {}
    while len(drawn) < count:
        digits_of = draw.randint(1, 6)
        drawn[draw.randrange(10 ** (digits_of - 1) if digits_of > 1 else 0, 10**digits_of)] = None
    return [(number, english(number), chinese(number)) for number in drawn]


def main(folder: str) -> None:
    """Write the files."""
    text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in digits())
    (Path(folder) / "digits.jsonl").write_text(text, encoding="utf-8", newline="\n")
    with (Path(folder) / "outfits.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("week", "day", "worn"))
        table.writerows(outfits())
    with (Path(folder) / "visitors.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("unique_id", "ds", "y", "holiday", "free"))
        table.writerows(visitors())
    with (Path(folder) / "numbers.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("number", "english", "chinese"))
        table.writerows(numbers())


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).parent))
