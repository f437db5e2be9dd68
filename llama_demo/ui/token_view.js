// A text token by token: coloured by probability, with the alternatives of the one that is chosen.
const SHADES = [0.8, 0.4, 0.15, 0.04, 0.005]; // from a sure token to a surprising one; below the last is the sixth

function shade(probability) {
  const found = SHADES.findIndex((least) => probability >= least);
  return found < 0 ? SHADES.length : found;
}

function percent(logprob) {
  const value = Math.exp(logprob) * 100;
  return value >= 10 ? `${value.toFixed(0)} %` : value >= 0.1 ? `${value.toFixed(1)} %` : `${value.toPrecision(1)} %`;
}

// Shows spaces and ends of lines that stand alone, and the bytes of half a character.
function visible(name) {
  return name.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replace(/^ +$| +$/g, (run) => "␣".repeat(run.length));
}

function openTokenView({ choose }) {
  const list = part("tokens");
  const details = part("token-details");
  const chart = part("token-chart");
  let words = {};
  let scores = null;
  let selected = null;

  function span(index) {
    const [text, logprob] = [scores.texts[index], scores.logprobs[index]];
    const shown = text === "" ? scores.names[scores.ids[index]] : text.replaceAll("\n", "⏎\n");
    const made = document.createElement("span");
    made.textContent = shown;
    made.dataset.index = index;
    made.className = logprob === null ? "first" : `shade-${shade(Math.exp(logprob))}`;
    if (text === "") made.classList.add("bytes");
    if (index >= scores.newFrom) made.classList.add("new");
    made.setAttribute("role", "button");
    made.tabIndex = -1;
    return made;
  }

  function show(found) {
    scores = found;
    selected = null;
    const all = document.createDocumentFragment();
    for (let index = 0; index < scores.ids.length; index += 1) all.append(span(index));
    list.replaceChildren(all);
    if (list.firstElementChild) list.firstElementChild.tabIndex = 0;
    list.scrollTop = 0;
    details.replaceChildren(make("p", { className: "note" }, words.pick));
    summarize();
    redraw();
    const fresh = list.querySelector(".new");
    // Once what stands around the list has taken its room.
    if (fresh) requestAnimationFrame(() => (list.scrollTop = fresh.offsetTop - list.clientHeight / 3));
  }

  function summarize() {
    if (!scores) return;
    const { perplexity } = scores;
    const value = perplexity === null ? "–" : perplexity.toFixed(perplexity < 100 ? 1 : 0);
    part("token-perplexity").textContent = filled(words.perplexity, { value, count: scores.ids.length });
    part("token-perplexity").title = words.perplexity_help;
    part("token-perplexity").append(make("small", {}, words.perplexity_line));
    const save = (label, name, kind, write) =>
      make("button", { className: "link", onclick: () => download(name, kind, write(scores)) }, label);
    part("token-export").replaceChildren(
      save("JSON", "tokens.json", "application/json", scoresAsJson),
      save("CSV", "tokens.csv", "text/csv", scoresAsCsv),
    );
  }

  function redraw() {
    if (!scores) return;
    const style = getComputedStyle(part("token-view"));
    const bars = SHADES.concat(0).map((_, index) => style.getPropertyValue(`--bar-${index}`));
    drawChart(chart, scores, { bars, mark: style.getPropertyValue("--body-text-color") }, selected);
  }

  function select(index, { focus = false } = {}) {
    const before = list.querySelector('[tabindex="0"]');
    if (before) before.tabIndex = -1;
    list.querySelector(".selected")?.classList.remove("selected");
    selected = index;
    const chosen = list.children[index];
    chosen.classList.add("selected");
    chosen.tabIndex = 0;
    if (focus) chosen.focus({ preventScroll: true });
    detail(index); // which may take room from the list
    chosen.scrollIntoView({ block: "nearest" });
    redraw();
  }

  function detail(index) {
    const id = scores.ids[index];
    const logprob = scores.logprobs[index];
    const name = make("strong", {}, visible(scores.names[id]));
    const values = { id, rank: scores.ranks[index] };
    const head = make("p", {}, name, " ");
    if (logprob === null) head.append(filled(words.token_first, values));
    else {
      Object.assign(values, { probability: percent(logprob), logprob: logprob.toFixed(2) });
      values.entropy = scores.entropies[index].toFixed(2);
      head.append(filled(words.token_figures, values));
    }
    const others = scores.top_ids[index].map((other, place) => alternative(index, other, scores.top_logprobs[index][place]));
    const hint = others.length ? [make("p", { className: "note" }, words.alternatives)] : [];
    details.replaceChildren(head, ...hint, make("div", { id: "token-alternatives" }, ...others));
  }

  function alternative(index, id, logprob) {
    const own = id === scores.ids[index];
    const button = make("button", { className: own ? "alternative own" : "alternative", dataset: { id } });
    button.style.setProperty("--share", `${Math.exp(logprob) * 100}%`);
    button.append(make("span", {}, visible(scores.names[id])), make("span", {}, percent(logprob)));
    button.title = own ? words.own : filled(words.choose, { token: visible(scores.names[id]) });
    if (!own) button.addEventListener("click", () => choose(index, id));
    else button.disabled = true;
    return button;
  }

  list.addEventListener("click", (event) => {
    const index = event.target.dataset?.index;
    if (index !== undefined) select(Number(index), { focus: true });
  });
  list.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
    const index = Number(document.activeElement?.dataset.index ?? 0);
    if (event.key === "Enter" || event.key === " ") select(index);
    else if (event.key in steps && scores) {
      select(Math.min(scores.ids.length - 1, Math.max(0, index + steps[event.key])), { focus: true });
    } else return;
    event.preventDefault();
  });
  chart.addEventListener("click", (event) => {
    if (!scores?.ids.length) return;
    const index = tokenUnder(chart, event, scores);
    select(index);
    list.children[index].scrollIntoView({ block: "center" });
  });
  new ResizeObserver(redraw).observe(chart);
  new MutationObserver(redraw).observe(document.body, { attributeFilter: ["class"] });

  return {
    show,
    scores: () => scores,
    // The tokens before `index`, and after them a text that is on its way.
    live(index, text) {
      while (list.lastElementChild && !(Number(list.lastElementChild.dataset.index) < index)) list.lastElementChild.remove();
      list.append(make("span", { className: "live" }, text));
      list.scrollTop = list.scrollHeight;
    },
    clear() {
      scores = null;
      list.replaceChildren();
      details.replaceChildren(make("p", { className: "note" }, words.no_tokens));
    },
    speak(given) {
      words = given;
      chart.setAttribute("aria-label", words.chart);
      list.setAttribute("aria-label", words.view_tokens);
      const steps = [...SHADES.map((least) => `≥ ${least * 100} %`), `< ${SHADES.at(-1) * 100} %`];
      part("token-legend").replaceChildren(
        make("span", {}, words.legend),
        ...steps.map((label, index) => make("span", { className: `shade-${index}` }, label)),
      );
      summarize();
    },
  };
}
