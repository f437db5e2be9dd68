// Gradio's dropdowns open at any key, that which leaves them too: their list would stay open over the page.
addEventListener(
  "keydown",
  (event) => {
    if (event.key === "Tab" && event.target.role === "combobox") event.stopPropagation();
  },
  true,
);
