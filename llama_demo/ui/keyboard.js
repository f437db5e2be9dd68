// Gradio's dropdowns open at any key, that which leaves them too: their list would stay open over the page.
addEventListener(
  "keydown",
  (event) => {
    if (event.key === "Tab" && event.target.role === "combobox") event.stopPropagation();
  },
  true,
);

// Arrows go along a row of tabs, whoever made it; Enter opens the one that they came to.
addEventListener("keydown", ({ key, target }) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
  if (!step || target.role !== "tab") return;
  const tabs = [...target.closest("[role=tablist]").querySelectorAll("[role=tab]:enabled")];
  tabs.at((tabs.indexOf(target) + step) % tabs.length).focus();
});
