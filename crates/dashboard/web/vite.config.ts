import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

/** `npm run dev` shows the page over the API of a running `doseline up`, or of DOSELINE_URL. */
const api = process.env.DOSELINE_URL ?? "http://127.0.0.1:9600";

export default defineConfig({
  plugins: [svelte()],
  build: { target: "es2022", assetsInlineLimit: 0, reportCompressedSize: false },
  server: { proxy: Object.fromEntries(["/api", "/login", "/logout", "/readyz"].map(path => [path, { target: api, changeOrigin: true }])) },
  resolve: process.env.VITEST ? { conditions: ["browser"] } : undefined,
});
