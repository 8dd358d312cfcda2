"""What a template holds, and how its inputs are known: the project's tables or its migrations, and the seed's rows."""
