/** Views that are loaded when they are opened, so that the first one need not bring them. */
import { call } from "../core/api";
import { lazy } from "../core/lazy";
import { useResource } from "../core/resource";
import { address } from "../core/router";

export const ONE_BY_ONE = 100; // instances of a mapped task

/** Lanes are of both of them: they come together with the view, not after it. */
function withLanes<T>(view: Promise<T>): Promise<T> {
  return Promise.all([view, import("../graph/lanes")]).then(([loaded]) => loaded);
}

export const LazyTrace = lazy(() => withLanes(import("./trace")).then((loaded) => loaded.Trace));

const Timeline = lazy(() => withLanes(import("./timeline")).then((loaded) => loaded.Timeline));

/** Asks for its data while its code is loaded. */
export function LazyTimeline({ id }: { id: string }) {
  const unfolded = address.value.query.get("each") ?? undefined;
  const found = useResource(
    `timeline ${id} ${unfolded}`,
    async (signal) => {
      const path = { run_id: id };
      const [whole, part] = await Promise.all([
        call("GET /api/v1/runs/{run_id}/timeline", { path }, signal),
        unfolded ? call("GET /api/v1/runs/{run_id}/timeline", { path, query: { task: unfolded, limit: ONE_BY_ONE } }, signal) : undefined,
      ]);
      return { whole, part };
    },
    { filter: { kinds: ["run", "task"], runs: [id] } },
  );
  return <Timeline of={found} />;
}
