// Shows the refined prompt in the node's own text field, and keeps the user's edits of it.

import { app } from "../../scripts/app.js";

app.registerExtension({
  name: "prip.refinePrompt",

  nodeCreated(node) {
    if (node.comfyClass !== "PripRefinePrompt") return;
    const text = node.widgets.find((widget) => widget.name === "refined_prompt");
    const keep = node.widgets.find((widget) => widget.name === "keep_edit");
    let shown = text.value; // text that the user did not type

    // Text that is only shown is not an input: it would make ComfyUI run an unchanged node again.
    text.serializeValue = () => (keep.value ? text.value : "");

    // Loading a stored workflow sets this field as typing does, and right after it keep_edit, the next widget.
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
