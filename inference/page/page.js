() => {
  const say = (button, text) => {
    const before = button.dataset.text ?? button.textContent;
    button.dataset.text = before;
    button.textContent = text;
    setTimeout(() => (button.textContent = before), 1600);
  };

  // navigator.clipboard exists on https and on this machine's own address only
  const copyAsBefore = (text) => {
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
        copied = copyAsBefore(text);
        button.focus();
      }
    }
    say(button, copied ? "Copied" : text ? "Select it and copy" : "Nothing yet");
    return [];
  };

  // on a narrow screen the result lies below what one sees
  const reveal = () => {
    const refined = document.querySelector("#refined");
    const { top } = refined.getBoundingClientRect();
    if (!document.querySelector(".notice.error") && top > window.innerHeight - 160) {
      const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
      refined.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
    }
  };

  // what screen readers are told besides: a new refined prompt, the notice under the prompt, and whether options show
  document.querySelector("#marked").setAttribute("aria-live", "polite");
  document.querySelector("#prompt textarea").setAttribute("aria-describedby", "notice");
  const more = document.querySelector("#more > button");
  const tellOpen = () => more.setAttribute("aria-expanded", more.classList.contains("open"));
  new MutationObserver(tellOpen).observe(more, { attributeFilter: ["class"] });
  tellOpen();

  window.prip = { copy, reveal };
}
