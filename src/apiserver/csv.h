/* apiserver/csv.h: comma-separated values, as Go's encoding/csv reads them: the file of static tokens, flags that hold pairs. */
#ifndef SKIFF_APISERVER_CSV_H
#define SKIFF_APISERVER_CSV_H

#include "base/arena.h"
#include "base/error.h"

typedef LIST(struct str) csv_fields;

/* The next record of *rest that is not an empty line; fields->n == 0 at the end. *line counts lines, for what errors say. */
struct error *csv_record(struct arena *a, struct str *rest, csv_fields *fields, int *line);

#endif
