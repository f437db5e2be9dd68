// What the scripts of several tabs share: finding things, saying things, and the panels that fold away.
const part = (id) => document.getElementById(id);
const narrow = window.matchMedia("(max-width: 899px)");
const PANELS = ["show-conversations", "show-settings", "show-text-settings"];

function randomId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function copyOf(value) {
  return JSON.parse(JSON.stringify(value));
}

// Gradio mounts its components one by one, this script's among them.
function whenMounted(id, action) {
  if (part(id)) action();
  else setTimeout(() => whenMounted(id, action), 50);
}

function say(id, text) {
  const place = part(id);
  if (place && place.textContent !== text) place.textContent = text;
}

function closeDrawers() {
  if (narrow.matches) document.body.classList.remove(...PANELS);
}

function togglePanel(name, other) {
  const open = document.body.classList.toggle(name);
  if (open && other && narrow.matches) document.body.classList.remove(other);
  for (const id of PANELS) part(id)?.setAttribute("aria-expanded", String(document.body.classList.contains(id)));
}

// A new element with its properties; a child may be a text.
function make(tag, properties = {}, ...children) {
  const { dataset, ...rest } = properties;
  const made = Object.assign(document.createElement(tag), rest);
  if (tag === "button") made.type = "button";
  Object.assign(made.dataset, dataset);
  made.append(...children);
  return made;
}

// `template` with its {places} filled.
function filled(template, values) {
  return template.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

// The line under what a model wrote: first token, speed, length, its seed, and how it ended where that needs saying.
function figuresLine({ first, speed, written }, words, { seed = null, finish = "" } = {}) {
  const { figures } = words;
  const said = [
    first !== null && filled(figures.first_token, { seconds: first.toFixed(2) }),
    speed !== null && filled(figures.speed, { speed: speed.toFixed(0) }),
    filled(figures.tokens, { count: written }),
    seed !== null && filled(figures.seed, { seed }),
    { length: figures.length, cancelled: figures.cancelled, stop: figures.stop }[finish],
  ];
  return said.filter(Boolean).join(" · ");
}

// Gives the visitor `text` as a file, made in the browser.
function download(name, kind, text) {
  const address = URL.createObjectURL(new Blob([text], { type: `${kind};charset=utf-8` }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
