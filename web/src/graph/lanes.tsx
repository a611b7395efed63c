/** Lanes on a time axis with folded idle time: bars that are links, a ruler, zoom, and keys. */
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { address, setQuery } from "../core/router";
import { duration } from "../core/time";
import { type Axis, axisOf, marks, moment } from "./fold";

export interface Bar {
  key: string;
  start: number;
  end: number;
  kind: "run" | "task" | "queued" | "waiting" | "pause" | "event" | "band";
  state?: string;
  /** What it is, for its title and for readers. */
  name: string;
  href?: string;
  /** Of a band: how full it is, from 0 to 1. */
  share?: number;
}

export interface Lane {
  key: string;
  name: string;
  href?: string;
  note?: string;
  bars: readonly Bar[];
}

const NAME = 190;
const ROW = 30;
const RULER = 24;
const SPARE = 6; // lanes above and below what is in view
const LEAST = 8; // pixels that can be hit
const MOST_ZOOM = 4_000_000;

export { moment };

/** Draws lanes, as far as they are in view; what is drawn stands in a list beside it, which is the caller's. */
export function Lanes(props: { label: string; lanes: readonly Lane[]; until?: number | undefined }) {
  const frame = useRef<HTMLDivElement>(null);
  const field = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(() => Math.max(160, innerWidth - NAME - 60));
  const [first, setFirst] = useState(0);
  const [count, setCount] = useState(() => Math.ceil((innerHeight * 0.7) / ROW) + 2 * SPARE);
  const { query } = address.value;
  const folded = query.get("fold") !== "no";
  const view = shownOf(query.get("shown"));
  const setView = ({ from, to }: { from: number; to: number }) =>
    setQuery({ shown: from <= 0 && to >= 1 ? undefined : `${from.toPrecision(9)} ${to.toPrecision(9)}` });
  useEffect(() => {
    const watch = new ResizeObserver(([entry]) => setWidth(Math.max(160, entry!.contentRect.width - NAME - 12)));
    watch.observe(frame.current!);
    return () => watch.disconnect();
  }, []);
  const { lanes } = props;
  const look = () => {
    const shown = field.current!;
    setFirst(Math.max(0, Math.floor(shown.scrollTop / ROW) - SPARE));
    setCount(Math.ceil(shown.clientHeight / ROW) + 2 * SPARE);
  };
  useLayoutEffect(look, [lanes.length]);
  const axis = useMemo(() => axisOf(lanes.flatMap((lane) => lane.bars), folded), [lanes, folded]);
  const drawn = lanes.slice(first, first + count);
  const x = (time: number) => ((axis.place(time) - view.from) / (view.to - view.from)) * width;
  const zoom = (factor: number, around = 0.5) => {
    const size = Math.min(1, Math.max(1 / MOST_ZOOM, (view.to - view.from) * factor));
    const middle = view.from + (view.to - view.from) * around;
    const from = Math.min(1 - size, Math.max(0, middle - size * around));
    setView({ from, to: from + size });
  };
  const move = (part: number) => {
    const size = view.to - view.from;
    const from = Math.min(1 - size, Math.max(0, view.from + size * part));
    setView({ from, to: from + size });
  };
  const keys = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "+" || event.key === "=") zoom(0.5);
    else if (event.key === "-") zoom(2);
    else if (event.key === "0") setView({ from: 0, to: 1 });
    else if (!step(event.key, frame.current!)) return;
    event.preventDefault();
    event.stopPropagation();
  };
  const whole = axis.time(view.to) - axis.time(view.from);
  return (
    <div class="lanes" ref={frame} onKeyDown={keys}>
      <div class="line tools">
        <button type="button" onClick={() => zoom(0.5)} aria-label="Zoom in" title="Zoom in: +">
          +
        </button>
        <button type="button" onClick={() => zoom(2)} aria-label="Zoom out" title="Zoom out: -">
          −
        </button>
        <button type="button" onClick={() => move(-0.5)} aria-label="Earlier" disabled={view.from <= 0}>
          ◂
        </button>
        <button type="button" onClick={() => move(0.5)} aria-label="Later" disabled={view.to >= 1}>
          ▸
        </button>
        <button type="button" onClick={() => setView({ from: 0, to: 1 })} title="Show all: 0">
          All
        </button>
        <label>
          <input type="checkbox" checked={folded} onChange={(event) => setQuery({ fold: event.currentTarget.checked ? undefined : "no" })} /> Fold
          idle time
        </label>
        <span class="faint">{duration(whole)} shown</span>
      </div>
      <div
        class="field"
        role="region"
        aria-label={props.label}
        // biome-ignore lint: it scrolls, so keys have to reach it
        tabIndex={0}
        ref={field}
        onScroll={look}
        onWheel={(event) => {
          if (!event.ctrlKey && !event.metaKey) return;
          event.preventDefault();
          const at = (event.clientX - event.currentTarget.getBoundingClientRect().left - NAME) / width;
          zoom(event.deltaY > 0 ? 1.25 : 0.8, Math.min(1, Math.max(0, at)));
        }}
      >
        <Ruler axis={axis} view={view} width={width} x={x} height={lanes.length * ROW} />
        <div style={{ height: `${first * ROW}px` }} />
        {drawn.map((lane) => (
          <div key={lane.key} class="lane" style={{ height: `${ROW}px` }}>
            <span class="name" style={{ width: `${NAME}px` }} title={lane.note ? `${lane.name}: ${lane.note}` : lane.name}>
              {lane.href ? <a href={lane.href}>{lane.name}</a> : lane.name}
              {lane.note && <small> {lane.note}</small>}
            </span>
            <span class="row" style={{ width: `${width}px` }}>
              {lane.bars.map((bar) => (
                <Drawn key={bar.key} bar={bar} left={x(bar.start)} right={x(bar.end)} width={width} />
              ))}
            </span>
          </div>
        ))}
        <div style={{ height: `${Math.max(0, lanes.length - first - drawn.length) * ROW}px` }} />
      </div>
    </div>
  );
}

/** Return which part of the axis an address says: from and to, each of 0 to 1; all of it if it says none. */
function shownOf(text: string | null): { from: number; to: number } {
  const [from, to] = (text ?? "").split(" ").map(Number);
  return from! >= 0 && to! <= 1 && from! < to! ? { from: from!, to: to! } : { from: 0, to: 1 };
}

/** A bar: as wide as it took, and as wide as a finger needs. */
function Drawn({ bar, left, right, width }: { bar: Bar; left: number; right: number; width: number }) {
  if (right < 0 || left > width) return null;
  const from = Math.max(-4, left);
  const wide = Math.max(3, Math.min(width + 4, right) - from);
  const hit = Math.max(LEAST, wide);
  const name = `${bar.name}${bar.end > bar.start ? `, ${duration(bar.end - bar.start)}` : ""}`;
  const style = { left: `${from - (hit - wide) / 2}px`, width: `${hit}px` };
  const inside = (
    <span
      class={`beam ${bar.kind} ${bar.state ? `s-${bar.state}` : ""}`}
      style={{ width: `${bar.kind === "event" ? LEAST : wide}px`, ...(bar.share !== undefined && { height: `${Math.max(8, bar.share * 100)}%` }) }}
    />
  );
  return bar.href ? (
    <a class="hit" href={bar.href} title={name} aria-label={name} style={style}>
      {inside}
    </a>
  ) : (
    <span class="hit" title={name} style={style}>
      {inside}
    </span>
  );
}

function Ruler(props: {
  axis: Axis;
  view: { from: number; to: number };
  width: number;
  height: number;
  x: (time: number) => number;
}) {
  const { axis, view, width, height, x } = props;
  const times = marks(axis, view.from, view.to, Math.max(2, Math.floor(width / 120)));
  const size = view.to - view.from;
  return (
    <div class="ruler" style={{ marginLeft: `${NAME}px`, width: `${width}px` }} aria-hidden="true">
      {times.map((time) => (
        <span key={time} class="mark" style={{ left: `${x(time)}px`, height: `${height + RULER}px` }}>
          +{duration(time - axis.start)}
        </span>
      ))}
      {axis.gaps.map((gap) => {
        const left = ((gap.at - view.from) / size) * width;
        const wide = ((gap.to - gap.at) / size) * width;
        if (left > width || left + wide < 0) return null;
        const title = `${duration(gap.end - gap.start)} without anything`;
        return (
          <span
            key={gap.start}
            class="gap"
            title={title}
            style={{ left: `${Math.max(0, left)}px`, width: `${Math.min(wide, width)}px`, height: `${height + RULER}px` }}
          >
            {duration(gap.end - gap.start)}
          </span>
        );
      })}
    </div>
  );
}

/** Move the focus between bars: to the left and right by time, up and down between lanes. */
function step(key: string, frame: HTMLElement): boolean {
  const along = { ArrowRight: 1, ArrowLeft: -1 }[key];
  const across = { ArrowDown: 1, ArrowUp: -1 }[key];
  const now = document.activeElement;
  if ((!along && !across) || !(now instanceof HTMLElement)) return false;
  const row = now.closest(".lane");
  if (!row) {
    const first = frame.querySelector<HTMLElement>("a.hit");
    first?.focus();
    return Boolean(first);
  }
  const bars = [...row.querySelectorAll<HTMLElement>("a.hit")];
  if (along) {
    bars[Math.max(0, Math.min(bars.length - 1, bars.indexOf(now) + along))]?.focus();
    return true;
  }
  const rows = [...frame.querySelectorAll(".lane")];
  for (let next = rows.indexOf(row) + across!; next >= 0 && next < rows.length; next += across!) {
    const near = [...rows[next]!.querySelectorAll<HTMLElement>("a.hit")];
    if (!near.length) continue;
    const left = now.getBoundingClientRect().left;
    near.sort((a, b) => Math.abs(a.getBoundingClientRect().left - left) - Math.abs(b.getBoundingClientRect().left - left));
    near[0]!.focus();
    return true;
  }
  return true;
}
