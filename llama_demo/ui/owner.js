// The owner gives the password here; the server answers with a cookie that no script can read. The page is then built
// anew, because what it offers depends on who looks at it.
let { words } = props.value;
const { password, sign_in: canSignIn } = props.value;
const form = element.querySelector("form");
const field = form.querySelector("input");
const button = form.querySelector("button");
const problem = form.querySelector("p");
const link = element.querySelector("a");
let owner = false;

function show() {
  element.querySelector("summary").textContent = owner ? words.unlocked : words.owner;
  field.placeholder = words.password;
  field.setAttribute("aria-label", words.password);
  field.hidden = owner;
  field.required = !owner;
  button.textContent = owner ? words.lock : words.unlock;
  form.hidden = !owner && !password;
  link.textContent = words.sign_in;
  link.hidden = owner || !canSignIn;
}

// What the server took changes the page, unless this browser did not keep the cookie that says so.
async function followed() {
  const now = await (await fetch("owner", { cache: "no-store" })).json();
  if (now.owner === owner) problem.textContent = words.no_cookies;
  else location.reload();
}

async function ask(options) {
  problem.textContent = "";
  button.disabled = true;
  try {
    const answer = await fetch("owner", { cache: "no-store", ...options });
    if (answer.status === 204) await followed();
    else if (answer.status === 200) ({ owner } = await answer.json());
    else problem.textContent = (await answer.json()).detail;
  } catch {
    problem.textContent = words.lost;
  }
  button.disabled = false;
  show();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const headers = { "content-type": "application/json", "accept-language": window.llamaDemoLanguage };
  if (owner) ask({ method: "DELETE" });
  else ask({ method: "POST", headers, body: JSON.stringify({ password: field.value }) });
  field.value = "";
});
watch("value", () => {
  ({ words } = props.value);
  show();
});
show();
ask();
