"use strict";

// Without this file the panel works too, and is loaded anew by each button.
new EventSource("feed").onmessage = (event) => {
	for (const [id, html] of Object.entries(JSON.parse(event.data))) {
		document.getElementById(id).innerHTML = html; // made by the server's templates
	}
};

addEventListener("submit", async (event) => {
	event.preventDefault();
	const { target: form, submitter } = event;
	const body = new URLSearchParams(new FormData(form, submitter));
	submitter.disabled = true;
	try {
		await fetch(form.getAttribute("action"), { method: "POST", body, redirect: "manual" });
	} finally {
		submitter.disabled = false;
	}
});
