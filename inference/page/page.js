() => {
  const flash = (button, text) => {
    const before = button.dataset.text ?? button.textContent;
    button.dataset.text = before;
    button.textContent = text;
    setTimeout(() => (button.textContent = before), 1600);
  };

  // navigator.clipboard exists only on https and localhost
  const copyBySelection = (text) => {
    const field = document.createElement("textarea");
    field.value = text;
    field.style.position = "fixed";
    document.body.append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    return copied;
  };

  const copy = async (text) => {
    const button = document.querySelector("#copy");
    let copied = text !== "";
    if (copied) {
      try {
        await navigator.clipboard.writeText(text);
      } catch {
        copied = copyBySelection(text);
        button.focus();
      }
    }
    flash(button, copied ? "Copied" : text ? "Select and copy it" : "Nothing yet");
    return [];
  };

  // on a narrow screen the result may be below the fold
  const reveal = () => {
    const refined = document.querySelector("#refined");
    const { top } = refined.getBoundingClientRect();
    if (!document.querySelector(".notice.error") && top > window.innerHeight - 160) {
      const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
      refined.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
    }
  };

  // an image in full, with its prompt and a link to save it
  const zoom = document.createElement("dialog");
  zoom.id = "zoom";
  zoom.append(...["img", "p", "nav"].map((name) => document.createElement(name)));
  const [picture, prompt, actions] = zoom.children;
  const save = document.createElement("a");
  save.textContent = "Download";
  const close = document.createElement("button");
  close.type = "button";
  close.textContent = "Close";
  actions.append(save, close);
  document.querySelector(".gradio-container").append(zoom);
  close.addEventListener("click", () => zoom.close());
  zoom.addEventListener("click", (event) => event.target === zoom && zoom.close());
  document.querySelector("#board").addEventListener("click", (event) => {
    const button = event.target.closest(".zoom");
    if (!button) return;
    const image = button.querySelector("img");
    picture.src = save.href = image.src;
    picture.alt = prompt.textContent = image.alt;
    picture.className = image.className;
    save.download = button.dataset.name;
    zoom.showModal();
  });

  // for screen readers: the refined prompt, the notice under the prompt, and whether the options are open
  document.querySelector("#marked").setAttribute("aria-live", "polite");
  document.querySelector("#prompt textarea").setAttribute("aria-describedby", "notice");
  const more = document.querySelector("#more > button");
  const updateExpanded = () => more.setAttribute("aria-expanded", more.classList.contains("open"));
  new MutationObserver(updateExpanded).observe(more, { attributeFilter: ["class"] });
  updateExpanded();

  window.prip = { copy, reveal };
}
