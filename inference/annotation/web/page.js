// Shows one question at a time, and the next one once the server has saved the answer.

const TASKS = {
  preference: {
    title: "Which image is better?",
    instructions:
      "You will see a prompt and two images made for it. Choose the one you would prefer if you had typed the prompt " +
      "yourself: press a key or a button, or click the image. If you have no preference, choose the tie.",
    question: "Which image do you prefer for this prompt?",
    answers: [
      { value: "left", label: "A", name: "image A", keys: ["a", "arrowleft"], shown: ["A", "←"] },
      { value: "tie", label: "Tie", name: "tie", keys: ["t", "arrowdown"], shown: ["T", "↓"] },
      { value: "right", label: "B", name: "image B", keys: ["b", "arrowright"], shown: ["B", "→"] },
    ],
    frames: [
      { value: "left", label: "A" },
      { value: "right", label: "B" },
    ],
  },
  relevance: {
    title: "Does the image show what was asked for?",
    instructions:
      "You will see a prompt and an image made for it. Say how much of the prompt the image shows: nothing (0), part of " +
      "it (1) or all of it (2). Ignore how beautiful the image is.",
    question: "How much of the prompt does the image show?",
    answers: [
      { value: "0", label: "Nothing", name: "0, nothing", keys: ["0", "digit0"], shown: ["0"] },
      { value: "1", label: "Part of it", name: "1, part of it", keys: ["1", "digit1"], shown: ["1"] },
      { value: "2", label: "All of it", name: "2, all of it", keys: ["2", "digit2"], shown: ["2"] },
    ],
    frames: [{ value: null, label: null }],
  },
};
const LONG_PROMPT = 110; // characters; longer prompts use a smaller font
const SMALL_IMAGE = 128; // pixels; smaller images are magnified without smoothing
const RETRY_MS = 1000;
const TIMEOUT_MS = 10000;
const NOTICE_MS = 4000;

const find = (id) => document.getElementById(id);
const images = new Map(); // token -> preloaded <img>

let task = null;
let state = null;
let shownAt = null; // when the images of the open question appeared; null before
let busy = false;
let clearing = null;
let staying = false;

// Shows a line above everything else for a few seconds, or until the next question appears.
function notice(text, stays = false) {
  clearTimeout(clearing);
  staying = stays;
  find("notice").textContent = text;
  if (text && !stays) clearing = setTimeout(() => notice(""), NOTICE_MS);
}

function requestName() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Repeats a request until the server answers. A repeated request has the same name and counts once.
async function ask(path, body) {
  const options = body && {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...body, request: requestName() }),
  };
  for (let failed = false; ; failed = true) {
    try {
      const response = await fetch(path, { ...options, signal: AbortSignal.timeout(TIMEOUT_MS), cache: "no-store" });
      if (response.status < 500) {
        const answer = await response.json();
        if (!response.ok) throw new RangeError(typeof answer.detail === "string" ? answer.detail : "the request was refused");
        if (failed) notice("The server is back.");
        return answer;
      }
    } catch (error) {
      if (error instanceof RangeError) throw error;
    }
    notice(
      body
        ? "The server does not respond. Your answer is not saved yet; keep this page open while it retries."
        : "The server does not respond; retrying.",
      true,
    );
    await pause(RETRY_MS);
  }
}

function imageOf(token) {
  if (!images.has(token)) {
    const image = new Image();
    image.alt = "";
    image.draggable = false;
    image.src = `/image/${token}?annotator=${encodeURIComponent(state.annotator)}`;
    image.ready = image.decode().then(() => {
      image.classList.toggle("small", image.naturalWidth <= SMALL_IMAGE);
    });
    image.ready.catch(() => images.delete(token));
    images.set(token, image);
  }
  return images.get(token);
}

function forgetImages() {
  const wanted = new Set([...(state.current?.images ?? []), ...state.next.flat()]);
  for (const token of images.keys()) if (!wanted.has(token)) images.delete(token);
}

function showTask() {
  const words = TASKS[task];
  find("title").textContent = words.title;
  find("instructions").textContent = words.instructions;
  find("question").textContent = words.question;
  find("answers").replaceChildren(
    ...words.answers.map((answer) => {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.answer = answer.value;
      button.setAttribute("aria-label", answer.name);
      const label = document.createElement("b");
      label.textContent = answer.label;
      const keys = document.createElement("span");
      keys.className = "keys";
      keys.append(
        ...answer.shown.map((key) => Object.assign(document.createElement("kbd"), { textContent: key })),
      );
      button.append(label, keys);
      button.addEventListener("click", () => choose(answer.value));
      return button;
    }),
  );
  find("frames").className = words.frames.length > 1 ? "pair" : "";
  find("frames").replaceChildren(
    ...words.frames.map((frame) => {
      const box = document.createElement(frame.value ? "button" : "div");
      box.className = "frame";
      if (frame.value) {
        box.type = "button";
        box.tabIndex = -1; // the buttons below do the same
        box.dataset.answer = frame.value;
        box.setAttribute("aria-label", `image ${frame.label}`);
        box.addEventListener("click", () => choose(frame.value));
      }
      return box;
    }),
  );
}

async function show(next) {
  state = next;
  shownAt = null;
  const { total, answered, current } = state;
  if (!current) {
    find("summary").textContent = `${total} of ${total} answered by ${state.annotator}.`;
    document.body.dataset.view = "done";
    return;
  }
  const pictures = current.images.map(imageOf);
  for (const token of state.next.flat()) imageOf(token);
  try {
    await Promise.all(pictures.map((picture) => picture.ready));
  } catch {
    notice("An image could not be loaded; retrying.", true);
    await pause(RETRY_MS);
    return show(await ask(`/api/state?annotator=${encodeURIComponent(state.annotator)}`));
  }
  find("bar").max = total;
  find("bar").value = answered;
  find("place").textContent = `${answered + 1} of ${total}`;
  find("annotator").textContent = state.annotator;
  find("prompt").textContent = current.user_prompt;
  find("prompt").classList.toggle("long", current.user_prompt.length > LONG_PROMPT);
  find("prompt").scrollTop = 0;
  find("undo").disabled = answered === 0;
  [...find("frames").children].forEach((box, index) => {
    const label = document.createElement("span");
    label.textContent = TASKS[task].frames[index].label;
    box.replaceChildren(pictures[index], ...(label.textContent ? [label] : []));
  });
  mark(null);
  if (staying) notice("");
  document.body.dataset.view = "ask";
  forgetImages();
  shownAt = performance.now();
}

function mark(value) {
  for (const button of document.querySelectorAll("[data-answer]")) {
    button.classList.toggle("chosen", button.dataset.answer === value);
  }
}

async function change(path, body, refused) {
  busy = true;
  try {
    const next = await ask(path, { annotator: state.annotator, ...body });
    if (!next.counts) notice(refused);
    await show(next);
  } catch (error) {
    notice(error.message);
    mark(null);
  } finally {
    busy = false;
  }
}

async function choose(value) {
  if (busy || shownAt === null || document.body.dataset.view !== "ask") return;
  mark(value);
  const seconds = (performance.now() - shownAt) / 1000;
  const body = { item: state.current.item, answer: value, seconds: Math.min(Math.round(seconds * 1000) / 1000, 86400) };
  await change("/api/answer", body, "This question was already answered elsewhere or removed; here is the next one.");
}

async function undo() {
  if (busy || !state?.answered) return;
  await change("/api/undo", { answered: state.answered }, "There are newer answers elsewhere; nothing was undone.");
}

async function begin(name) {
  try {
    notice("");
    images.clear();
    const first = await ask(`/api/state?annotator=${encodeURIComponent(name)}`);
    sessionStorage.setItem("annotator", first.annotator);
    localStorage.setItem("annotator", first.annotator);
    await show(first);
  } catch (error) {
    notice(error.message, true);
    showStart();
  }
}

function showStart() {
  if (busy) return;
  sessionStorage.removeItem("annotator");
  state = null;
  shownAt = null;
  document.body.dataset.view = "start";
  find("name").value = localStorage.getItem("annotator") ?? "";
  find("name").focus();
  find("name").select();
}

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || event.target instanceof HTMLInputElement) return;
  if (!["ask", "done"].includes(document.body.dataset.view)) return;
  const keys = [event.key.toLowerCase(), event.code.toLowerCase()];
  const answer = TASKS[task].answers.find((one) => one.keys.includes(keys[0]) || one.keys.includes(keys[1]));
  if (keys[0] === "u") undo();
  else if (answer) choose(answer.value);
  else return;
  event.preventDefault();
});
find("who").addEventListener("submit", (event) => {
  event.preventDefault();
  begin(find("name").value);
});
for (const id of ["undo", "undo-last"]) find(id).addEventListener("click", undo);
for (const id of ["leave", "leave-done"]) find(id).addEventListener("click", showStart);

const study = await ask("/api/study");
task = study.task;
document.title = TASKS[task].title;
showTask();
const known = sessionStorage.getItem("annotator");
if (known) await begin(known);
else showStart();
