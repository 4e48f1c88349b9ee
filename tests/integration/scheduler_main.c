/* The scheduler alone, for tests and for work on it. */
#include "scheduler/scheduler.h"

int main(int argc, char **argv)
{
	return kube_scheduler_main(argc, argv);
}
