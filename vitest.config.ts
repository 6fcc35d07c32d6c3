// SPDX-License-Identifier: Apache-2.0
// Every test file runs in a process of its own: a crash of the addon fails that file and no other.
import { defineConfig, type ViteUserConfig } from 'vitest/config'

const config: ViteUserConfig = defineConfig({
  test: {
    include: ['tests/**/*.test.{ts,mjs}'],
    pool: 'forks',
    // No GPU, so that device 'auto' is the CPU everywhere; the tests of CUDA name their own driver.
    env: { MAESTRALE_CUDA_DRIVER: '' },
    testTimeout: 30_000,
    hookTimeout: 60_000,
    teardownTimeout: 10_000,
    // The engine uses every core by itself; two files at a time keep the timings meaningful.
    maxWorkers: 2,
    maxConcurrency: 2,
    passWithNoTests: false,
  },
})

export default config
