// The one door to the vendored libraries.
export {
  html, render, useState, useEffect, useLayoutEffect, useRef, useMemo, useCallback,
} from "../vendor/preact-htm.module.js";
