import { effect } from "@preact/signals";
import { render } from "preact";
import { refusals } from "./core/api";
import { followSignInLink, loadMe, me } from "./core/me";
import { followLinks } from "./core/router";
import { App, applyTheme } from "./shell";
import { say } from "./ui/dialog";

applyTheme();
followLinks();
// The session has ended: ask once more, and show the form to sign in.
effect(() => {
  if (refusals.value && me.peek()) void loadMe();
});
render(<App />, document.getElementById("app")!);
await followSignInLink();
// Also so that nobody acts under a name that a link of somebody else has given them.
if (me.value) say(`Signed in as ${me.value.name}.`);
if (!me.value) await loadMe();
