#include "perf/number.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

static unsigned unit_shift(const char **end)
{
	char unit = (char)tolower((unsigned char)**end);

	if (unit != 'k' && unit != 'm') {
		return 0;
	}
	(*end)++;
	return unit == 'k' ? 10 : 20;
}

int number_parse(const char *word, uint64_t min, uint64_t max, uint64_t *value)
{
	char *after;
	const char *end;
	unsigned long long n;
	unsigned shift;

	if (!isdigit((unsigned char)word[0])) {
		return -EINVAL;
	}
	errno = 0;
	n = strtoull(word, &after, 10);
	if (errno != 0) {
		return -ERANGE;
	}
	end = after;
	shift = unit_shift(&end);
	if (*end != '\0') {
		return -EINVAL;
	}
	if (n > (UINT64_MAX >> shift) || (n << shift) < min || (n << shift) > max) {
		return -ERANGE;
	}
	*value = n << shift;
	return 0;
}

int number_parse_real(const char *word, double max, double *value)
{
	char *end;
	double n;

	if (!isdigit((unsigned char)word[0]) && word[0] != '.') {
		return -EINVAL;
	}
	n = strtod(word, &end);
	if (end == word || *end != '\0') {
		return -EINVAL;
	}
	if (!(n >= 0 && n <= max)) {
		return -ERANGE;
	}
	*value = n;
	return 0;
}
