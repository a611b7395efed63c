/** Views whose code is loaded when they are opened first. */
import type { ComponentType } from "preact";
import { useLayoutEffect, useState } from "preact/hooks";
import { Problem } from "../ui/parts";

export function lazy<P extends object>(from: () => Promise<ComponentType<P>>): ComponentType<P> {
  let loaded: ComponentType<P> | undefined;
  let loading: Promise<ComponentType<P>> | undefined;
  const load = () => {
    // What could not be loaded is tried again when it is opened again.
    loading ??= from().catch((fault: unknown) => {
      loading = undefined;
      throw fault;
    });
    return loading;
  };
  return function Lazy(props: P) {
    // At once, not after the next frame: what it shows is asked for by its own code.
    if (!loaded) load().catch(() => {});
    const [, again] = useState(0);
    const [error, setError] = useState<unknown>();
    // Not after the next frame, as an effect: that would be the later the slower the machine is.
    useLayoutEffect(() => {
      if (loaded) return;
      load()
        .then((view) => {
          loaded = view;
          again((count) => count + 1);
        })
        .catch(setError);
    }, []);
    if (loaded) {
      const View = loaded;
      return <View {...props} />;
    }
    // A page that was built anew has other files: only loading all of it helps.
    if (error) return <Problem error="This view cannot be loaded." retry={() => location.reload()} />;
    return (
      <p class="loading" role="status">
        Loading the view…
      </p>
    );
  };
}
