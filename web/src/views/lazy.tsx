/** Views that are loaded when they are opened, so that the first one need not bring them. */
import { useResource } from "../core/resource";
import { Loaded } from "../ui/parts";
import type { Traced } from "./trace";

export function LazyTrace({ of }: { of: Traced }) {
  const part = useResource("part trace", () => import("./trace"));
  return (
    <Loaded of={part} what="the trace">
      {({ Trace }) => <Trace of={of} />}
    </Loaded>
  );
}

export function LazyTimeline({ id }: { id: string }) {
  const part = useResource("part timeline", () => import("./timeline"));
  return (
    <Loaded of={part} what="the timeline">
      {({ Timeline }) => <Timeline id={id} />}
    </Loaded>
  );
}
