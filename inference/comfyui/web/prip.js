// Shows the refined prompt in the node's own text field, and keeps what is typed into it.

import { app } from "../../scripts/app.js";

app.registerExtension({
  name: "prip.refinePrompt",

  nodeCreated(node) {
    if (node.comfyClass !== "PripRefinePrompt") return;
    const text = node.widgets.find((widget) => widget.name === "refined_prompt");
    const keep = node.widgets.find((widget) => widget.name === "keep_edit");
    let shown = text.value; // what is there without anyone having typed it

    // What is only shown is no input: it would make ComfyUI run again what has not changed.
    text.serializeValue = () => (keep.value ? text.value : "");

    // A stored workflow sets this field like one who types, and keep_edit, which stands behind it, right after.
    const changed = text.callback;
    text.callback = function (value) {
      changed?.apply(this, arguments);
      if (text.value !== shown) {
        shown = text.value;
        keep.value = true;
      }
    };

    const executed = node.onExecuted;
    node.onExecuted = function (output) {
      executed?.apply(this, arguments);
      if (!keep.value && output?.refined_prompt) {
        shown = output.refined_prompt.join("\n\n");
        text.value = shown;
      }
      for (const detail of output?.notes ?? []) {
        app.extensionManager?.toast?.add({ severity: "warn", summary: "PRIP", detail, life: 10000 });
      }
      node.setDirtyCanvas?.(true, true);
    };
  },
});
