WITH coded_5 AS (
  SELECT
    c.row_id,
    c.as_of,
    k.place,
    f.fact_id,
    f.system,
    f.code,
    f.unit,
    f.value,
    f.happened_at,
    f.known_at,
    ROW_NUMBER() OVER (PARTITION BY c.row_id, k.place, f.fact_id ORDER BY k.code_rank) AS turn
  FROM cohort AS c
  JOIN labs AS f
    ON f.person_id = c.person_id
    AND f.happened_at >= c.since_14_days
    AND f.happened_at < c.as_of
    AND f.known_at < c.as_of
  JOIN (
    SELECT DISTINCT
      system,
      code,
      place,
      code_rank
    FROM feature_units
    WHERE
      group_number = 5
  ) AS k
    ON k.system = f.system AND k.code = f.code
), seen_5 AS (
  SELECT
    f.row_id,
    f.as_of,
    f.place,
    f.happened_at,
    f.known_at,
    FLOOR(f.value * u.factor * CAST(1000000 AS DOUBLE) + CAST(0.5 AS DOUBLE)) AS micro
  FROM coded_5 AS f
  JOIN feature_units AS u
    ON u.group_number = 5
    AND u.system = f.system
    AND u.code = f.code
    AND u.unit = f.unit
    AND u.place = f.place
  WHERE
    f.turn = 1 AND f.value * u.factor BETWEEN u.least AND u.most
), ends_5 AS (
  SELECT
    row_id,
    place,
    MAX(as_of) AS as_of,
    MAX(CASE WHEN from_last = 1 THEN happened_at END) AS last_happened_at,
    MAX(CASE WHEN from_last = 1 THEN micro END) AS last_micro,
    MAX(CASE WHEN from_first = 1 THEN happened_at END) AS first_happened_at,
    MAX(CASE WHEN from_first = 1 THEN micro END) AS first_micro
  FROM (
    SELECT
      row_id,
      place,
      as_of,
      happened_at,
      micro,
      ROW_NUMBER() OVER (
        PARTITION BY row_id, place
        ORDER BY happened_at DESC NULLS LAST, known_at DESC NULLS LAST, micro DESC NULLS LAST
      ) AS from_last,
      ROW_NUMBER() OVER (PARTITION BY row_id, place ORDER BY happened_at ASC, known_at ASC, micro ASC) AS from_first
    FROM seen_5
  ) AS ranked
  GROUP BY
    row_id,
    place
), stats_5 AS (
  SELECT
    row_id,
    place,
    COUNT(*) AS n,
    MIN(micro) AS least,
    MAX(micro) AS most,
    SUM(CAST(micro AS BIGINT)) AS total
  FROM seen_5
  GROUP BY
    row_id,
    place
)
SELECT
  row_id,
  feature,
  value
FROM (
  SELECT
    c.row_id,
    0 + (
      CASE
        WHEN c.as_of_year - p.birth_year - CASE
          WHEN c.as_of_day < COALESCE(p.birth_month, 1) * 100 + COALESCE(p.birth_day, 1)
          THEN 1
          ELSE 0
        END >= 18.0
        THEN 1
        ELSE 0
      END + CASE
        WHEN c.as_of_year - p.birth_year - CASE
          WHEN c.as_of_day < COALESCE(p.birth_month, 1) * 100 + COALESCE(p.birth_day, 1)
          THEN 1
          ELSE 0
        END >= 65.0
        THEN 1
        ELSE 0
      END
    ) AS feature,
    CAST(1 AS DOUBLE) AS value
  FROM cohort AS c
  JOIN persons AS p
    ON p.person_id = c.person_id
  WHERE
    NOT p.birth_year IS NULL
  UNION ALL
  SELECT
    c.row_id,
    CASE WHEN p.sex = 'female' THEN 3 WHEN p.sex = 'male' THEN 4 END AS feature,
    CAST(1 AS DOUBLE) AS value
  FROM cohort AS c
  JOIN persons AS p
    ON p.person_id = c.person_id
  WHERE
    p.sex IN ('female', 'male')
  UNION ALL
  SELECT DISTINCT
    c.row_id,
    k.feature,
    CAST(1 AS DOUBLE) AS value
  FROM cohort AS c
  JOIN person_categories AS p
    ON p.person_id = c.person_id AND p.kind = 'race'
  JOIN feature_codes AS k
    ON k.group_number = 2 AND k.system = p.system AND k.code = p.code
  UNION ALL
  SELECT
    c.row_id,
    k.feature,
    CAST(COUNT(DISTINCT f.fact_id) AS DOUBLE) AS value
  FROM cohort AS c
  JOIN diagnoses AS f
    ON f.person_id = c.person_id
    AND f.happened_at >= c.since_365_days
    AND f.happened_at < c.as_of
    AND f.known_at < c.as_of
  JOIN feature_codes AS k
    ON k.group_number = 3
    AND k.system = f.system
    AND k.code = SUBSTRING(REPLACE(f.code, '.', ''), 1, 3)
  WHERE
    f.recorded_in IN ('problem-list-item')
  GROUP BY
    c.row_id,
    k.feature
  UNION ALL
  SELECT
    c.row_id,
    k.feature,
    CAST(COUNT(DISTINCT f.fact_id) AS DOUBLE) * MAX(k.weight) AS value
  FROM cohort AS c
  JOIN medications AS f
    ON f.person_id = c.person_id
    AND f.happened_at >= c.since_28_days
    AND f.happened_at < c.as_of
    AND f.known_at < c.as_of
  JOIN feature_codes AS k
    ON k.group_number = 4 AND k.system = f.system AND k.code = f.code
  GROUP BY
    c.row_id,
    k.feature
  UNION ALL
  SELECT
    s.row_id,
    t.feature_bins + (
      CASE WHEN s.micro / CAST(1000000 AS DOUBLE) >= t.edge_0 THEN 1 ELSE 0 END + CASE WHEN s.micro / CAST(1000000 AS DOUBLE) >= t.edge_1 THEN 1 ELSE 0 END
    ) AS feature,
    CAST(COUNT(*) AS DOUBLE) AS value
  FROM seen_5 AS s
  JOIN feature_tests AS t
    ON t.group_number = 5 AND t.place = s.place
  GROUP BY
    s.row_id,
    t.feature_bins + (
      CASE WHEN s.micro / CAST(1000000 AS DOUBLE) >= t.edge_0 THEN 1 ELSE 0 END + CASE WHEN s.micro / CAST(1000000 AS DOUBLE) >= t.edge_1 THEN 1 ELSE 0 END
    )
  UNION ALL
  SELECT
    s.row_id,
    t.feature_last AS feature,
    s.last_micro / CAST(1000000 AS DOUBLE) AS value
  FROM ends_5 AS s
  JOIN feature_tests AS t
    ON t.group_number = 5 AND t.place = s.place
  UNION ALL
  SELECT
    s.row_id,
    t.feature_first AS feature,
    s.first_micro / CAST(1000000 AS DOUBLE) AS value
  FROM ends_5 AS s
  JOIN feature_tests AS t
    ON t.group_number = 5 AND t.place = s.place
  UNION ALL
  SELECT
    s.row_id,
    t.feature_mean AS feature,
    CAST(s.total AS DOUBLE) / CAST(s.n AS DOUBLE) / CAST(1000000 AS DOUBLE) AS value
  FROM stats_5 AS s
  JOIN feature_tests AS t
    ON t.group_number = 5 AND t.place = s.place
  UNION ALL
  SELECT
    s.row_id,
    t.feature_min AS feature,
    s.least / CAST(1000000 AS DOUBLE) AS value
  FROM stats_5 AS s
  JOIN feature_tests AS t
    ON t.group_number = 5 AND t.place = s.place
  UNION ALL
  SELECT
    s.row_id,
    t.feature_max AS feature,
    s.most / CAST(1000000 AS DOUBLE) AS value
  FROM stats_5 AS s
  JOIN feature_tests AS t
    ON t.group_number = 5 AND t.place = s.place
  UNION ALL
  SELECT
    s.row_id,
    t.feature_count AS feature,
    CAST(s.n AS DOUBLE) AS value
  FROM stats_5 AS s
  JOIN feature_tests AS t
    ON t.group_number = 5 AND t.place = s.place
  UNION ALL
  SELECT
    s.row_id,
    t.feature_slope AS feature,
    CASE
      WHEN CAST(DATEDIFF(
        SECOND,
        DATE_TRUNC('SECOND', s.first_happened_at),
        DATE_TRUNC('SECOND', s.last_happened_at)
      ) AS DOUBLE) = 0
      THEN CAST(0 AS DOUBLE)
      ELSE (
        s.last_micro / CAST(1000000 AS DOUBLE) - s.first_micro / CAST(1000000 AS DOUBLE)
      ) / (
        CAST(DATEDIFF(
          SECOND,
          DATE_TRUNC('SECOND', s.first_happened_at),
          DATE_TRUNC('SECOND', s.last_happened_at)
        ) AS DOUBLE) / CAST(86400 AS DOUBLE)
      )
    END AS value
  FROM ends_5 AS s
  JOIN feature_tests AS t
    ON t.group_number = 5 AND t.place = s.place
  UNION ALL
  SELECT
    s.row_id,
    t.feature_hours_since AS feature,
    CAST(DATEDIFF(SECOND, DATE_TRUNC('SECOND', s.last_happened_at), DATE_TRUNC('SECOND', s.as_of)) AS DOUBLE) / CAST(3600 AS DOUBLE) AS value
  FROM ends_5 AS s
  JOIN feature_tests AS t
    ON t.group_number = 5 AND t.place = s.place
  UNION ALL
  SELECT
    c.row_id,
    t.feature_missing AS feature,
    CAST(1 AS DOUBLE) AS value
  FROM cohort AS c
  CROSS JOIN feature_tests AS t
  LEFT JOIN stats_5 AS s
    ON s.row_id = c.row_id AND s.place = t.place
  WHERE
    t.group_number = 5 AND s.row_id IS NULL
) AS found
WHERE
  value <> 0
ORDER BY
  row_id,
  feature
