// Gradio's audio input rejects a file whose type the browser does not know to begin with `audio/`: webm, mp4, mkv, caf,
// names without an extension. The service decides by content what is audio, so such files are given a type that passes.
"use strict";
{
    const INPUT = "#song input[type=file]";
    const TYPE = "audio/unknown";

    const retyped = files => {
        const transfer = new DataTransfer();
        for (const file of files)
            transfer.items.add(
                file.type.startsWith("audio/")
                    ? file
                    : new File([file], file.name, { type: TYPE, lastModified: file.lastModified })
            );
        return transfer;
    };

    // capturing, at the document: before Gradio's own listeners, and for inputs that Gradio makes anew
    document.addEventListener("click", event => {
        if (event.target.matches?.(INPUT)) event.target.removeAttribute("accept"); // else the dialogue hides files
    }, true);
    document.addEventListener("change", event => {
        if (event.target.matches?.(INPUT)) event.target.files = retyped(event.target.files).files;
    }, true);
    document.addEventListener("drop", event => {
        if (!event.isTrusted || !event.target.closest?.("#song") || !event.dataTransfer?.files.length) return;
        event.preventDefault();
        event.stopImmediatePropagation();
        const dropped = { bubbles: true, cancelable: true, dataTransfer: retyped(event.dataTransfer.files) };
        event.target.dispatchEvent(new DragEvent("drop", dropped));
    }, true);
}
