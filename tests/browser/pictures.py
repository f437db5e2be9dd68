"""What a visitor would see of it: pictures of one page in which some of what it draws is left out, compared.

No picture is kept from one day to the next, so neither fonts nor the browser's version matter. In half ink, letters on
white are never darker than half unless something else is drawn at the same place, in half ink too. An icon is a box, in
a little less ink than the letters.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page

TWICE = 0.66
"""How dark it is where two draw over each other. Where two neighbouring letters just touch it is less."""
INKED = 0.42
"""How dark the inside of a letter is."""
SEEN = 4
"""How much lighter or darker, of 255, a letter must be than what it stands on."""
SPECKS = 3
"""So many pixels are the edge of a letter, and no finding."""
_MARK = """() => {
  const controls = "button:not(.upload-container), input, textarea, select, summary";
  const hasText = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  for (const element of document.querySelectorAll("body *")) {
    const { overflow, textOverflow, color } = getComputedStyle(element);
    const inside = element.parentElement.closest("[data-drawn=box], [data-drawn=inside]");
    if (color === "rgba(0, 0, 0, 0)") element.dataset.drawn = "nothing";
    else element.dataset.drawn = inside ? "inside" : element.matches(controls) ? "box" : "text";
    element.dataset.hides = overflow === "hidden" && textOverflow !== "ellipsis" && hasText(element);
  }
}"""
_LETTERLESS = "*, *::before, *::after, *::placeholder { -webkit-text-fill-color: transparent !important; }"
_BARE = """
  html { background: #fff !important; }
  *:not(#a#b#c), *:not(#a#b#c)::before, *:not(#a#b#c)::after, *::placeholder {
    -webkit-text-fill-color: rgb(0 0 0 / %s) !important;
    color: transparent !important;
    background: none !important;
    border-color: transparent !important;
    box-shadow: none !important;
    outline: none !important;
    text-decoration: none !important;
  }
  [data-drawn=nothing]:not(#a#b#c#d) { -webkit-text-fill-color: transparent !important; }
  svg, img, canvas, meter, progress, input:is([type=range], [type=checkbox], [type=radio]) { opacity: 0 !important; }
  ::-webkit-slider-thumb, :not(#a#b#c)::-webkit-slider-runnable-track { opacity: 0 !important; }
"""
_LETTERS = (
    _BARE % 0.5
    + """
  svg:not(#a#b#c#d) { background: rgb(0 0 0 / 0.38) !important; opacity: 1 !important; }
  svg * { opacity: 0 !important; }
"""
)
_BOXES = (
    _BARE % 0
    + """
  [data-drawn=text]:not(#a#b#c#d) { -webkit-text-fill-color: rgb(0 0 0 / 0.5) !important; }
  [data-drawn=box]:not(#a#b#c#d) {
    appearance: none !important;
    background: rgb(0 0 0 / 0.5) !important;
    opacity: 1 !important;
  }
"""
)
_WHOLE = """
  [data-hides=true]:not(#a#b#c#d) { overflow: visible !important; min-width: 0 !important; min-height: 0 !important; }
"""
_AT = """([x, y]) => document.elementsFromPoint(x, y).slice(0, 4).map((element) =>
  `${element.tagName.toLowerCase()}#${element.id}.${element.className} ${element.textContent.trim().slice(0, 30)}`)"""

_LOOKS = 5
_LOOK_MILLISECONDS = 300

Picture = NDArray[np.float32]


def faults(page: Page) -> list[str]:
    """What is drawn over something else, hidden by it, or cut off, with the place and what is there; and still is once
    the page has had time to settle between one picture and the next."""
    for _ in range(_LOOKS):
        found = _look(page)
        if not found:
            break
        page.wait_for_timeout(_LOOK_MILLISECONDS)
    return found


def _look(page: Page) -> list[str]:
    page.evaluate(_MARK)
    letters, boxes = ink(page, _LETTERS), ink(page, _BOXES)
    seen = np.abs(ink(page, "") - ink(page, _LETTERLESS)) * 255
    found = {
        "letters over letters": letters > TWICE,
        "over a control": boxes > TWICE,
        "letters that are not seen": (letters > INKED) & (seen < SEEN),
        "letters cut off": ink(page, _LETTERS + _WHOLE) - letters > INKED,
    }
    return [f"{fault}: {place(page, where)}" for fault, where in found.items() if where.sum() > SPECKS]


def ink(page: Page, style: str) -> Picture:
    """How dark each pixel of the window is, from 0 to 1, with `style` added to the page's own."""
    picture: Any = Image.open(io.BytesIO(page.screenshot(style=style, animations="disabled"))).convert("L")
    dark: Picture = np.float32(1) - np.asarray(picture, dtype=np.float32) / np.float32(255)
    return dark


def place(page: Page, where: NDArray[np.bool_]) -> str:
    """Where the first of it is, and the elements there."""
    y, x = (int(axis[0]) for axis in np.nonzero(where))
    return f"{int(where.sum())} pixels from {x}, {y}: {page.evaluate(_AT, [x, y])}"
