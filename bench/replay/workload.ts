// Workloads: what benches of starts import, and of which environment: the channel's few packages, or a warehouse of 300.

import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";

export interface Workload {
  /** As Python's statement takes them. */
  readonly imports: string;
  /** The base and the environment, installed on local disk. */
  readonly root: string;
  /** Beside the channel's packages. */
  readonly wheels: readonly string[];
  /** Where the environment's store is kept from run to run: it takes minutes to make. Undefined: it is made anew. */
  readonly store?: string;
}

/** 30 of the 300: 4,300 modules. */
const WIDE = [
  ...["numpy", "pandas", "sklearn", "scipy.stats", "pyarrow", "statsmodels.api", "xgboost"],
  ...["sqlalchemy", "requests", "boto3", "pydantic", "nltk", "plotly", "networkx", "sympy"],
  ...["PIL.Image", "dask", "xarray", "yaml", "jinja2", "lxml.etree", "bs4", "cryptography.fernet"],
  ...["aiohttp", "httpx", "openpyxl", "snowflake.connector", "polars", "duckdb", "pymysql"],
].join(",");

/** What is imported of each; of the small one sklearn, too, where fixtures/sklearn.sh has put it. */
const IMPORTS: Readonly<Record<string, string>> = {
  small: "numpy,pandas",
  warehouse: "numpy,pandas,sklearn",
  "warehouse-wide": WIDE,
};

export const ENVIRONMENTS: readonly string[] = Object.keys(IMPORTS);

/** BURROW_FIXTURES's part of it. Throws where it hasn't been made. */
export function workloadOf(fixtures: string, environment = "small"): Workload {
  const imports = IMPORTS[environment]!;
  const of = (folder: string) => ({
    root: join(folder, "root"),
    wheels: readdirSync(join(folder, "wheels")).map((name) => join(folder, "wheels", name)),
  });
  if (environment !== "small") {
    const warehouse = join(fixtures, "warehouse");
    if (!existsSync(join(warehouse, "root")))
      throw new Error(`${environment} needs fixtures/warehouse.sh ${fixtures} first`);
    return { imports, ...of(warehouse), store: join(warehouse, "store") };
  }
  const sklearn = join(fixtures, "sklearn");
  if (existsSync(sklearn)) return { imports: `${imports},sklearn`, ...of(sklearn) };
  return { imports, root: join(fixtures, "check"), wheels: [] };
}
