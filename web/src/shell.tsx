/** What is around every view: navigation, palette, keys, theme, and the state of the connection. */
import { signal } from "@preact/signals";
import type { ComponentChild } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { call } from "./core/api";
import { lazy } from "./core/lazy";
import { bind, bound, lettersOn, listenToKeys, switchLetters } from "./core/keys";
import { followsLink, me, trouble } from "./core/me";
import { address, navigate, to } from "./core/router";
import { relative, now } from "./core/time";
import { lostSince } from "./live/live";
import { Dialog, outcome, say } from "./ui/dialog";
import { Empty, Heading } from "./ui/parts";
import { Approval, Approvals } from "./views/approvals";
import { Dag } from "./views/dag";
import { Dags } from "./views/dags";
import { Event, Events } from "./views/events";
import { Letter, Letters } from "./views/letters";
import { Run } from "./views/run";
import { Runs } from "./views/runs";
import { Sessions } from "./views/sessions";
import { SignIn } from "./views/sign-in";
import { Task } from "./views/task";
import { Waits } from "./views/waits";

const Now = lazy(() => import("./views/now").then((each) => each.Now));
const Datasets = lazy(() => import("./views/datasets").then((each) => each.Datasets));
const Dataset = lazy(() => import("./views/datasets").then((each) => each.Dataset));
const System = lazy(() => import("./views/system").then((each) => each.System));
const Past = lazy(() => import("./views/past/past").then((found) => found.Past));
const Backfill = lazy<{ id: string }>(() => import("./views/past/backfills").then((found) => found.Backfill));
const Simulator = lazy(() => import("./views/simulator/simulator").then((found) => found.Simulator));
const Tasks = lazy(() => import("./views/tasks").then((found) => found.Tasks));

const PLACES = [
  { path: "now", name: "Now", keys: "g n" },
  { path: "runs", name: "Runs", keys: "g r" },
  { path: "tasks", name: "Tasks", keys: "g k" },
  { path: "dags", name: "DAGs", keys: "g d" },
  { path: "events", name: "Events", keys: "g e" },
  { path: "datasets", name: "Datasets", keys: "g t" },
  { path: "waits", name: "Waits", keys: "g w" },
  { path: "approvals", name: "Approvals", keys: "g a" },
  { path: "letters", name: "Dead letters", keys: "g l" },
  { path: "system", name: "System", keys: "g s" },
  { path: "past", name: "Backfills", keys: "g p" },
  { path: "simulator", name: "Simulator", keys: "g m" },
] as const;

const PHONE = 600; // pixels, as in style.css

type View = (...parts: string[]) => ComponentChild;

const VIEWS: readonly [RegExp, View][] = [
  [/^\/(?:now)?$/, () => <Now />],
  [/^\/runs$/, () => <Runs />],
  [/^\/runs\/([^/]+)$/, (id) => <Run id={id!} />],
  [/^\/runs\/([^/]+)\/tasks\/([^/]+)$/, (run, task) => <Task run={run!} task={task!} />],
  [/^\/tasks$/, () => <Tasks />],
  [/^\/dags$/, () => <Dags />],
  [/^\/dags\/([^/]+)$/, (id) => <Dag id={id!} />],
  [/^\/events$/, () => <Events />],
  [/^\/events\/([^/]+)$/, (id) => <Event id={id!} />],
  [/^\/waits$/, () => <Waits />],
  [/^\/approvals$/, () => <Approvals />],
  [/^\/approvals\/([^/]+)$/, (id) => <Approval id={id!} />],
  [/^\/letters$/, () => <Letters />],
  [/^\/letters\/([^/]+)$/, (id) => <Letter id={id!} />],
  [/^\/datasets$/, () => <Datasets />],
  [/^\/datasets\/([^/]+)$/, (uri) => <Dataset uri={uri!} />],
  [/^\/system$/, () => <System />],
  [/^\/system\/([a-z]+)$/, (part) => <System part={part!} />],
  [/^\/past$/, () => <Past />],
  [/^\/past\/([^/]+)$/, (id) => <Backfill id={id!} />],
  [/^\/simulator$/, () => <Simulator />],
  [/^\/account$/, () => <Sessions />],
];

function Shown() {
  const { path } = address.value;
  for (const [pattern, view] of VIEWS) {
    const found = pattern.exec(path);
    if (found) return <>{view(...found.slice(1).map(decodeURIComponent))}</>;
  }
  return (
    <>
      <Heading title="No such view" />
      <Empty>
        <p>Nothing is at {path}.</p>
        <a href={to("runs")}>Go to the runs</a>
      </Empty>
    </>
  );
}

const opened = signal<"palette" | "keys" | null>(null);

export function App() {
  const signedIn = me.value;
  useLayoutEffect(() => {
    listenToKeys(() => {
      opened.value = "palette";
    });
    return bind(
      ...PLACES.map(({ path, name, keys }) => ({ keys, about: `Go to ${name}`, act: () => navigate(to(path)) })),
      { keys: "/", about: "Search and go to", act: () => (opened.value = "palette") },
      { keys: "?", about: "Show the keys", act: () => (opened.value = "keys") },
      { keys: "Y", about: "Copy the address", act: copyAddress },
      { keys: "r", about: "Retry, where there is something to retry", act: () => press("Retry") },
      { keys: "c", about: "Clear, where there is something to clear", act: () => press("Clear") },
      { keys: "p", about: "Pause or unpause", act: () => press("Pause", "Unpause") },
      { keys: "s", about: "Start", act: () => press("Start") },
      { keys: "e", about: "Post an event, or edit", act: () => press("Post", "Edit", "Send again") },
    );
  }, []);
  useFocusOnMove();
  if (signedIn === undefined && (trouble.value || followsLink())) {
    return (
      <main>
        <p class="loading" role="status">
          {trouble.value ? `${trouble.value}; trying again…` : "Loading…"}
        </p>
      </main>
    );
  }
  return (
    <>
      <a class="skip" href="#main">
        Skip to the content
      </a>
      <Bar />
      {lostSince.value !== null && signedIn && (
        <div class="lost" role="status">
          No connection since {relative(lostSince.value, now.value)}: what is shown may be out of date.
        </div>
      )}
      <main id="main" tabIndex={-1}>
        {/* While it is asked who this is, the view is loaded already: it shows only what the server lets out. */}
        {signedIn === null ? <SignIn /> : <Shown key={address.value.path} />}
      </main>
      <Outcome />
      {opened.value === "palette" && <Palette close={() => (opened.value = null)} />}
      {opened.value === "keys" && <Keys close={() => (opened.value = null)} />}
    </>
  );
}

/** Press a button of the row with the focus, or else of the view: the one named by such a word. */
function press(...words: string[]): void {
  const place = document.activeElement?.closest("tr") ?? document.querySelector("main .heading");
  const buttons = place?.querySelectorAll<HTMLButtonElement>(".actions button:not(:disabled)") ?? [];
  [...buttons].find((each) => words.some((word) => each.textContent?.startsWith(word)))?.click();
}

async function copyAddress(): Promise<void> {
  await navigator.clipboard.writeText(location.href);
  say("The address is copied.");
}

/** Moves the focus to the content of a new view, so that keys and readers begin there. */
function useFocusOnMove(): void {
  const { path } = address.value;
  const first = useRef(true);
  useLayoutEffect(() => {
    if (!first.current) document.getElementById("main")?.focus({ preventScroll: true });
    first.current = false;
  }, [path]);
}

function Bar() {
  const { path } = address.value;
  const views = useRef<HTMLElement>(null);
  // On a phone they stand in one row, which scrolls. Elsewhere nothing asks for where they are: that takes a layout.
  useLayoutEffect(() => {
    if (innerWidth > PHONE) return;
    views.current?.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [path, me.value]);
  return (
    <header class="bar">
      <a class="brand" href={to("now")}>
        <img src="/ui/icon.svg" alt="" width="22" height="22" />
        pubsubflow
      </a>
      {me.value && (
        <nav aria-label="Views" ref={views}>
          {PLACES.map((place) => (
            <a
              key={place.path}
              href={to(place.path)}
              title={`Keys: ${place.keys}`}
              aria-current={isAt(path, place.path) ? "page" : undefined}
            >
              {place.name}
            </a>
          ))}
        </nav>
      )}
      <div class="right">
        {me.value && (
          <button type="button" onClick={() => (opened.value = "palette")}>
            Search <kbd>/</kbd>
          </button>
        )}
        <ThemeSwitch />
        <button type="button" class="quiet" aria-label="Keys" title="Keys" onClick={() => (opened.value = "keys")}>
          ?
        </button>
        {me.value && (
          <a class="button" href={to("account")} title={`Role ${me.value.role}`}>
            {me.value.name}
          </a>
        )}
      </div>
    </header>
  );
}

function isAt(path: string, place: string): boolean {
  return path === `/${place}` || path.startsWith(`/${place}/`) || (path === "/" && place === "now");
}

const THEMES = ["auto", "light", "dark"] as const;
const THEME = "psf-theme";

export function applyTheme(): void {
  const stored = localStorage.getItem(THEME);
  if (stored === "light" || stored === "dark") document.documentElement.dataset.theme = stored;
  else delete document.documentElement.dataset.theme;
}

function ThemeSwitch() {
  const [theme, setTheme] = useState(localStorage.getItem(THEME) ?? "auto");
  return (
    <select
      aria-label="Colours"
      value={theme}
      onChange={(event) => {
        const chosen = event.currentTarget.value;
        localStorage.setItem(THEME, chosen);
        setTheme(chosen);
        applyTheme();
      }}
    >
      {THEMES.map((each) => (
        <option key={each}>{each}</option>
      ))}
    </select>
  );
}

function Outcome() {
  const text = outcome.value;
  useEffect(() => {
    if (!text) return;
    const timer = setTimeout(() => say(""), 6000);
    return () => clearTimeout(timer);
  }, [text]);
  return (
    <div class="outcome" role="status">
      {text}
    </div>
  );
}

function Keys({ close }: { close: () => void }) {
  return (
    <Dialog title="Keys" close={close}>
      <label>
        <input
          type="checkbox"
          checked={lettersOn.value}
          onChange={(event) => switchLetters(event.currentTarget.checked)}
        />{" "}
        Keys of a single letter act
      </label>
      <div class="keys">
        <kbd>Ctrl K</kbd>
        <span>Search and go to</span>
        <kbd>↑ ↓ j k</kbd>
        <span>Move between the rows of a table</span>
        {bound.value.map((each) => (
          <>
            <kbd>{each.keys}</kbd>
            <span>{each.about}</span>
          </>
        ))}
      </div>
    </Dialog>
  );
}

interface Goal {
  name: string;
  kind: string;
  href: string;
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** Finds views, DAGs, datasets, and whatever has the id that is entered. */
function Palette({ close }: { close: () => void }) {
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const [known, setKnown] = useState<readonly Goal[]>([]);
  useEffect(() => {
    const control = new AbortController();
    const load = async () => {
      const [dags, datasets] = await Promise.all([
        call("GET /api/v1/dags", { query: { limit: 1000 } }, control.signal),
        call("GET /api/v1/datasets", { query: { limit: 1000 } }, control.signal),
      ]);
      setKnown([
        ...dags.items.map((dag) => ({ name: dag.dag_id, kind: "DAG", href: to("dags", dag.dag_id) })),
        ...datasets.items.map((each) => ({
          name: each.dataset,
          kind: "dataset",
          href: to("datasets", each.dataset),
        })),
      ]);
    };
    load().catch(() => {});
    return () => control.abort();
  }, []);
  const wanted = text.trim().toLowerCase();
  const goals: Goal[] = [
    ...(UUID.test(wanted)
      ? [
          { name: wanted, kind: "run", href: to("runs", wanted) },
          { name: wanted, kind: "event", href: to("events", wanted) },
        ]
      : []),
    ...PLACES.map((place) => ({ name: place.name, kind: "view", href: to(place.path) })),
    { name: "Account", kind: "view", href: to("account") },
    ...["Pools", "Connections", "Variables", "Alerts", "Access"].map((name) => ({
      name,
      kind: "view",
      href: to("system", name.toLowerCase()),
    })),
    ...known,
  ];
  const found = goals.filter((each) => each.name.toLowerCase().includes(wanted)).slice(0, 40);
  const chosen = Math.min(at, found.length - 1);
  const go = (goal: Goal | undefined) => {
    if (!goal) return;
    close();
    navigate(goal.href);
  };
  const keys = (event: KeyboardEvent) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      const next = Math.max(0, Math.min(found.length - 1, chosen + step));
      setAt(next);
      document.getElementById(`goal-${next}`)?.scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter") {
      event.preventDefault();
      go(found[chosen]);
    }
  };
  return (
    <Dialog title="Search" close={close}>
      <div class="palette">
        <input
          // biome-ignore lint: a dialog that was opened to type into
          autofocus
          type="search"
          {...({ role: "combobox" } as object)}
          aria-label="Name of a view, a DAG or a dataset, or an id"
          aria-expanded="true"
          aria-controls="goals"
          aria-activedescendant={found.length ? `goal-${chosen}` : undefined}
          placeholder="Name of a view, a DAG or a dataset, or an id"
          value={text}
          onInput={(event) => {
            setText(event.currentTarget.value);
            setAt(0);
          }}
          onKeyDown={keys}
        />
        <ul id="goals" role="listbox" aria-label="Found">
          {found.map((goal, index) => (
            <li
              key={`${goal.kind} ${goal.name}`}
              id={`goal-${index}`}
              role="option"
              aria-selected={index === chosen}
              onClick={() => go(goal)}
            >
              <span>{goal.name}</span>
              <span class="faint">{goal.kind}</span>
            </li>
          ))}
        </ul>
        {!found.length && <p class="faint">Nothing has this name.</p>}
      </div>
    </Dialog>
  );
}
